import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { openTestData } from '../../tests/support/dataProcess.ts';
import {
  conversationDefects,
  csvDefects,
  jsonlDefects,
  writeDefects,
  type Defect,
} from '../../tests/support/defects.ts';
import { needs, testData } from '../../tests/support/skip.ts';
import { openDatabase, select, sqlString } from './database.ts';

const opened = openTestData('defects');
const { dir, data } = opened;
afterAll(opened.close);

let imports = 0;
/** Imports and says what became of each line. */
async function importFiles(...files: string[]) {
  const outDir = join(dir, `import-${imports++}`);
  const result = await data.request('importSource', {
    files,
    format: 'auto',
    outDir,
    memoryLimit: '192MB',
  });
  const database = await openDatabase('', '256MB');
  const table = (name: string) => `read_parquet(${sqlString(join(outDir, `${name}.parquet`))})`;
  const lines = await select<{ file: string; line: number; outcome: string; detail: string }>(
    database.connection,
    `SELECT file, line, 'kept' AS outcome, '' AS detail FROM ${table('rows')}
     UNION ALL SELECT file, line, reason, detail FROM ${table('rejects')} ORDER BY file, line`,
  );
  database.close();
  expect(lines.length, 'rows in = rows kept + rows named').toBe(result.rowsIn);
  expect(result.rows + result.rejected).toBe(result.rowsIn);
  return { result, lines, outDir };
}

function write(name: string, content: string | Buffer): string {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}

/** The most that the process ever held, where the system says so. */
function peakBytes(): number | null {
  try {
    const status = readFileSync(`/proc/${data.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)![1]) * 1024;
  } catch {
    return null;
  }
}

const goodRow = JSON.stringify({ question: 'What is two and two?', answer: 'Four.' });
const goodChat = JSON.stringify({
  conversations: [
    { from: 'human', value: 'q', weight: 0 },
    { from: 'gpt', value: 'a', weight: 1 },
  ],
});

describe('a file of defects', () => {
  test.each<[string, Defect[], string, number]>([
    ['rows', jsonlDefects(), goodRow, 150],
    ['conversations', conversationDefects(), goodChat, 50],
  ])(
    '%s: each is kept or named, the others are imported, in little memory',
    async (name, defects, good, atLeast) => {
      expect(defects.length).toBeGreaterThanOrEqual(atLeast);
      const path = join(dir, `${name}.jsonl`);
      const outcomes = writeDefects(path, defects, good);
      const { lines } = await importFiles(path);
      const byLine = new Map(lines.map((line) => [line.line, line.outcome]));
      expect(byLine.size, 'no line is told twice').toBe(lines.length);
      const wrong = outcomes.flatMap((expected, index) => {
        const found = byLine.get(index + 1) ?? 'blank';
        const defect = index % 2 === 1 ? defects[(index - 1) / 2] : undefined;
        return found === expected ? [] : [`${defect?.name ?? 'a good row'}: ${found}, expected ${expected}`];
      });
      expect(wrong).toEqual([]);
      for (const { detail } of lines) expect(detail.length).toBeLessThanOrEqual(300);
      const peak = peakBytes();
      if (peak !== null) expect(peak / 2 ** 20).toBeLessThan(600);
    },
    120_000,
  );

  test('CSV: each is kept or named, and no quote swallows the rows after it', async () => {
    const defects = csvDefects();
    const parts = [Buffer.from('question,answer,note\n')];
    const expected: string[] = [];
    for (const { text, outcomes } of defects) {
      parts.push(Buffer.from('good question,good answer,good\n'), text);
      expected.push('kept', ...outcomes);
    }
    parts.push(Buffer.from('good question,good answer,good'));
    expected.push('kept');
    const { lines, result } = await importFiles(write('defects.csv', Buffer.concat(parts)));
    expect(lines.map(({ outcome }) => outcome)).toEqual(expected);
    expect(result.format).toBe('question-answer');
    expect(lines.at(-1)!.line).toBe(
      Buffer.concat(parts).reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 1),
    );
  }, 60_000);

  const labelled = (dataset: string, n: number, output: string) =>
    Array.from({ length: n }, (_, i) => ({
      corpus: '',
      dataset,
      instruction: '',
      conversation: [{ input: `${dataset} ${i}`, output }],
    }));

  test('labels of Magicoder that are swapped are noticed, and only those', async () => {
    const [code, prose] = ['```python\nprint()\n```', 'You can print it: `print()`.'];
    const swapped = [...labelled('evolcode', 34, code), ...labelled('osscode', 66, prose)];
    const right = [...labelled('evolcode', 34, prose), ...labelled('osscode', 66, code)];
    const notesOf = async (name: string, rows: object[]) =>
      (await importFiles(write(name, JSON.stringify(rows)))).result.notes.join('\n');
    expect(await notesOf('swapped.json', swapped)).toContain("'osscode' and 'evolcode' look swapped");
    expect(await notesOf('right.json', right)).not.toContain('swapped');
  });

  test.runIf(needs('data'))('the swapped labels of the published sample are noticed', async () => {
    const { result } = await importFiles(testData('data/idae-sample.json'));
    expect(result).toMatchObject({ format: 'reference', rows: 500, rejected: 0 });
    expect(result.notes).toEqual([
      'guessed the format reference (sure): all of the first 200 rows read as it',
      expect.stringMatching(/'osscode' and 'evolcode' look swapped: 34 of 34 .* 0 of 66/),
    ]);
  });

  test('labels that other objects have as names are counted', async () => {
    const rows = ['__proto__', 'constructor', 'constructor'].flatMap((name) => labelled(name, 1, 'a'));
    const { result } = await importFiles(write('labels.json', JSON.stringify(rows)));
    expect(result.labels['constructor']).toBe(2);
  });

  test('ids that repeat are kept and noted', async () => {
    const row = (id: string, n: number) => JSON.stringify({ id, question: `q${n}`, answer: 'a' });
    const { result } = await importFiles(
      write('ids.jsonl', [row('x', 1), row('y', 2), row('x', 3)].join('\n')),
    );
    expect(result.rows).toBe(3);
    expect(result.notes).toContainEqual(expect.stringMatching(/^1 rows repeat the id .*\(the first: x\)/));
  });
});

describe('containers and encodings', () => {
  const rows = Array.from({ length: 5000 }, (_, i) =>
    JSON.stringify({ question: `What is ${i}? 😀 é`, answer: `It is ${i}. ${(i * 7919) % 10007}` }),
  );
  const jsonl = Buffer.from(`${rows.join('\n')}\n`);
  const csv = Buffer.from(
    `question\tanswer\n${rows.map((row) => Object.values(JSON.parse(row) as object).join('\t')).join('\n')}`,
  );
  const half = jsonl.indexOf('\n', jsonl.length / 2) + 1;
  const halves = [jsonl.subarray(0, half), jsonl.subarray(half)];
  const utf16 = Buffer.from(jsonl.toString(), 'utf16le');
  const big = Buffer.from(utf16).swap16();

  test.each<[string, Buffer]>([
    ['plain.jsonl', jsonl],
    ['named-wrongly.csv', jsonl],
    ['named-wrongly.parquet', jsonl],
    ['array.json', Buffer.from(`[${rows.join(',\n')}]`)],
    ['table.tsv', csv],
    ['table-without-a-telling-name.dat', csv],
    ['packed.jsonl.gz', gzipSync(jsonl)],
    ['packed-in-two-members.gz', Buffer.concat(halves.map((part) => gzipSync(part)))],
    ['packed.jsonl.zst', zstdCompressSync(jsonl)],
    ['packed-in-two-frames.zst', Buffer.concat(halves.map((part) => zstdCompressSync(part)))],
    ['packed-array.json.zst', zstdCompressSync(Buffer.from(`[${rows.join(',')}]`))],
    ['packed-table.csv.gz', gzipSync(csv)],
    ['named-plainly.jsonl', gzipSync(jsonl)],
    [
      'skippable.zst',
      Buffer.concat([Buffer.from('502a4d1804000000deadbeef', 'hex'), zstdCompressSync(jsonl)]),
    ],
    ['marked.jsonl', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), jsonl])],
    ['little.jsonl', Buffer.concat([Buffer.from([0xff, 0xfe]), utf16])],
    ['big.jsonl', Buffer.concat([Buffer.from([0xfe, 0xff]), big])],
    ['little-unmarked.jsonl', utf16],
    ['big-unmarked.jsonl.gz', gzipSync(big)],
    ['carriage-returns.jsonl', Buffer.from(jsonl.toString().replaceAll('\n', '\r'))],
    ['both.jsonl', Buffer.from(jsonl.toString().replaceAll('\n', '\r\n'))],
  ])('%s', async (name, content) => {
    const { result, outDir } = await importFiles(write(name, content));
    expect(result).toMatchObject({ rows: 5000, rejected: 0, format: 'question-answer' });
    const last = await data.request('readSourceRows', { dir: outDir, after: 4998, limit: 1 });
    expect(last[0]!.messages.map(({ content: words }) => words)).toEqual(
      Object.values(JSON.parse(rows[4999]!) as object),
    );
  });

  test.each<[string, Buffer]>([
    ['cut.gz', gzipSync(jsonl)],
    ['cut.zst', zstdCompressSync(jsonl)],
  ])('%s: what came whole is kept, always as much, and the damage named', async (name, whole) => {
    for (const share of [0.3, 0.7, 0.999]) {
      const path = write(name, whole.subarray(0, Math.floor(whole.length * share)));
      // A cut so early that nothing came out is no damage to rows.
      const found = await importFiles(path).catch((error: unknown) => error as Error);
      if (found instanceof Error) {
        expect(found.message).toContain('cut short');
        continue;
      }
      const { lines, result } = found;
      expect(lines.at(-1)!.outcome).toBe('damaged_file');
      expect(result.rows).toBeGreaterThan(0);
      expect((await importFiles(path)).result.rows).toBe(result.rows);
      expect(lines.slice(0, result.rows).map(({ line }) => line)).toEqual(
        Array.from({ length: result.rows }, (_, i) => i + 1),
      );
    }
  });

  test.each<[string, Buffer, string]>([
    ['an archive in an archive', gzipSync(gzipSync(jsonl)), 'unpack it first'],
    ['a zip file', Buffer.concat([Buffer.from('PK\x03\x04'), jsonl]), 'zip'],
    ['UTF-32', Buffer.concat([Buffer.from([0xff, 0xfe, 0, 0]), jsonl]), 'UTF-32'],
    ['a torn Parquet file', Buffer.concat([Buffer.from('PAR1'), jsonl]), 'Parquet'],
  ])('%s is named, and the other files of the source are read', async (_, content, words) => {
    const bad = write('bad.bin', content);
    const { lines, result } = await importFiles(
      write('good.jsonl', jsonl),
      bad,
      write('also-good.jsonl', jsonl),
    );
    expect(result).toMatchObject({ rows: 10_000, rejectedByReason: { damaged_file: 1 } });
    expect(lines.find(({ outcome }) => outcome === 'damaged_file')).toMatchObject({
      file: 'bad.bin',
      detail: expect.stringContaining(words),
    });
    await expect(importFiles(bad)).rejects.toMatchObject({ code: 'no_rows' });
  });

  test('a bomb of zeros inside an archive is one line too long', async () => {
    const bomb = zstdCompressSync(Buffer.alloc(1 << 28));
    const path = write(
      'bomb.zst',
      Buffer.concat([zstdCompressSync(jsonl), bomb, zstdCompressSync(`\n${goodRow}\n`)]),
    );
    const { result, lines } = await importFiles(path);
    expect(result).toMatchObject({ rows: 5001, rejectedByReason: { row_too_long: 1 } });
    expect(lines.at(-1)).toMatchObject({ line: 5002, outcome: 'kept' });
    const peak = peakBytes();
    if (peak !== null) expect(peak / 2 ** 20).toBeLessThan(600);
  }, 60_000);
});

describe('Parquet', () => {
  async function copy(name: string, sql: string, options = ''): Promise<string> {
    const database = await openDatabase('', '256MB');
    const path = join(dir, name);
    await database.connection.run(`COPY (${sql}) TO ${sqlString(path)} (FORMAT parquet${options})`);
    database.close();
    return path;
  }

  test('nested columns, several files, names with brackets', async () => {
    const conversations = `[{'from': 'human', 'value': 'q' || i, 'weight': NULL::DOUBLE}, {'from': 'gpt', 'value': 'a', 'weight': 1.0}]`;
    const files = await Promise.all(
      ['data[0]*.parquet', 'data-1.parquet'].map((name) =>
        copy(name, `SELECT ${conversations} AS conversations, 'nan'::DOUBLE AS score FROM range(3000) t(i)`),
      ),
    );
    const { result } = await importFiles(...files);
    expect(result).toMatchObject({ format: 'sharegpt', rows: 6000, rejected: 0 });
  });

  test('nulls and numbers are named by row', async () => {
    const path = await copy(
      'nulls.parquet',
      `SELECT 'q' || i AS question, CASE WHEN i % 3 = 0 THEN NULL ELSE 'a' END AS answer FROM range(9) t(i)`,
    );
    const { lines } = await importFiles(path);
    expect(lines.map(({ outcome }) => outcome)).toEqual(
      Array.from({ length: 9 }, (_, i) => (i % 3 === 0 ? 'wrong_type' : 'kept')),
    );
  });

  test('a text that is no UTF-8 costs its own row alone', async () => {
    const path = await copy(
      'broken.parquet',
      `SELECT 'question ' || i AS question, 'answer' AS answer FROM range(20000) t(i)`,
      `, COMPRESSION uncompressed, ROW_GROUP_SIZE 4096, DICTIONARY_SIZE_LIMIT 0`,
    );
    const bytes = readFileSync(path);
    for (const row of [0, 7000, 7001, 19_999]) {
      const at = bytes.indexOf(`question ${row}`);
      expect(at).toBeGreaterThan(0);
      // Statistics in the footer hold the first and last text too: those stay.
      bytes[at + 3] = 0xff;
    }
    const { lines } = await importFiles(write('broken2.parquet', bytes));
    expect(lines).toHaveLength(20_000);
    expect(lines.filter(({ outcome }) => outcome !== 'kept')).toMatchObject(
      [1, 7001, 7002, 20_000].map((line) => ({ line, outcome: 'invalid_utf8' })),
    );
  });
});

test('a file that is blank, and an archive of nothing, hold no rows', async () => {
  for (const content of [Buffer.from(' \n\n'), gzipSync(''), zstdCompressSync('')])
    await expect(importFiles(write('nothing', content))).rejects.toMatchObject({ code: 'no_rows' });
});
