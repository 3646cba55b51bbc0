import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { memoryLimit, openTestData, type ImportedSource } from '../../tests/support/dataProcess.ts';
import { createDataProcess } from './client.ts';
import { recipeSchema } from '../shared/dataset/recipe.ts';

/** The real process, without the addon: mixes of text alone. */
const opened = openTestData('data');
const { dir, data } = opened;
afterAll(opened.close);

async function importRows(name: string, rows: object[]): Promise<ImportedSource> {
  const imported = await opened.importRows(rows, name);
  expect(imported.rowsIn).toBe(rows.length);
  return imported;
}

const question = (n: number, answer = `It is ${n}.`) => ({ question: `What is ${n}?`, answer });

describe('import', () => {
  test('rows in = rows kept + rows named', async () => {
    const file = join(dir, 'mixed.jsonl');
    writeFileSync(
      file,
      `${JSON.stringify(question(1))}\n{"question":"x",\n${JSON.stringify(question(2, ''))}\n`,
    );
    const outDir = join(dir, 'mixed');
    const result = await data.request('importSource', { files: [file], format: 'auto', outDir, memoryLimit });
    expect(result).toMatchObject({
      rowsIn: 3,
      rows: 1,
      rejected: 2,
      rejectedByReason: { malformed_json: 1, empty_answer: 1 },
    });
    expect(await data.request('readRejects', { dir: outDir, after: -1, limit: 10 })).toMatchObject([
      { file: 'mixed.jsonl', line: 2, reason: 'malformed_json' },
      { file: 'mixed.jsonl', line: 3, reason: 'empty_answer', field: 'answer' },
    ]);
  });

  test('a file of which nothing can be read is refused and leaves nothing behind', async () => {
    const file = join(dir, 'torn.json');
    writeFileSync(file, '[{"question":"x"');
    const outDir = join(dir, 'torn');
    await expect(
      data.request('importSource', { files: [file], format: 'auto', outDir, memoryLimit }),
    ).rejects.toMatchObject({
      code: 'no_rows',
      place: { file, line: 1 },
    });
    expect(readdirSync(dir).filter((name) => name.startsWith('torn') && name !== 'torn.json')).toEqual([]);
  });

  test('unknown columns are listed with the mend', async () => {
    const file = join(dir, 'unknown.jsonl');
    writeFileSync(file, '{"foo":1}\n');
    await expect(
      data.request('importSource', {
        files: [file],
        format: 'auto',
        outDir: join(dir, 'unknown'),
        memoryLimit,
      }),
    ).rejects.toMatchObject({
      code: 'bad_file',
      message: expect.stringContaining('foo'),
      mend: expect.stringContaining('--map'),
    });
  });
});

describe('mix', () => {
  const recipe = (more: object) =>
    recipeSchema.parse({
      name: 'mix',
      seed: 7,
      sources: [
        { name: 'a', source: 'a' },
        { name: 'b', source: 'b' },
      ],
      ...more,
    });

  async function build(out: string, recipeFields: object, sources: { dir: string; contentHash: string }[]) {
    return data.request('buildMix', {
      recipe: recipe(recipeFields),
      sources,
      benchmarks: [],
      tokenizer: null,
      outDir: join(dir, out),
      memoryLimit,
      threads: 1,
    });
  }

  function filesHash(folder: string): string {
    const hash = createHash('sha256');
    for (const name of readdirSync(folder, { recursive: true }).map(String).sort())
      if (/\.(json|parquet)$/.test(name)) hash.update(name).update(readFileSync(join(folder, name)));
    return hash.digest('hex');
  }

  test('weights give the largest mix that needs no row twice; duplicates and the undrawn are named; bytes repeat', async () => {
    const a = await importRows(
      'a',
      Array.from({ length: 90 }, (_, i) => question(i)),
    );
    // Ten of b's rows repeat rows of a up to case and spacing.
    const b = await importRows('b', [
      ...Array.from({ length: 10 }, (_, i) => ({ question: `WHAT  is ${i}?`, answer: `it is ${i}.` })),
      ...Array.from({ length: 40 }, (_, i) => question(1000 + i)),
    ]);
    const fields = {
      sources: [
        { name: 'a', source: 'a', weight: 3 },
        { name: 'b', source: 'b', weight: 1 },
      ],
      validation: { perSource: 5 },
    };
    const result = await build('mix1', fields, [a, b]);
    expect(result.sources).toMatchObject([
      { name: 'a', rowsIn: 90, rows: 85, validationRows: 5, rejectedByReason: {} },
      {
        name: 'b',
        rowsIn: 50,
        rows: 28,
        validationRows: 5,
        rejectedByReason: { duplicate: 10, not_sampled: 7 },
      },
    ]);
    const again = await build('mix2', fields, [a, b]);
    expect(again.contentHash).toBe(result.contentHash);
    expect(filesHash(join(dir, 'mix2'))).toBe(filesHash(join(dir, 'mix1')));
    const other = await build('mix3', { ...fields, seed: 8 }, [a, b]);
    expect(other.contentHash).not.toBe(result.contentHash);
    const rows = await data.request('readMixRows', {
      dir: join(dir, 'mix1'),
      split: 'train',
      after: -1,
      limit: 1000,
    });
    expect(rows.map((row) => row.row)).toEqual(Array.from({ length: 113 }, (_, i) => i));
    expect(new Set(rows.map((row) => row.hash)).size).toBe(113);
    const held = await data.request('readMixRows', {
      dir: join(dir, 'mix1'),
      split: 'validation',
      after: -1,
      limit: 1000,
    });
    expect(rows.map((row) => row.hash).filter((hash) => held.some((row) => row.hash === hash))).toEqual([]);
    const picked = await data.request('readMixRowsAt', {
      dir: join(dir, 'mix1'),
      split: 'train',
      rows: [9, 2],
    });
    expect(picked.map((row) => row.messages)).toEqual([rows[9]!.messages, rows[2]!.messages]);
  });

  describe('rows of one original question', () => {
    /** As MetaMathQA has them: `size` rows for each of `seeds`, and spacing that differs. */
    const augmented = (seeds: number, size: number, type: string) =>
      Array.from({ length: seeds * size }, (_, i) => ({
        type,
        query: `${type} ${i}: how many?`,
        original_question: `${i % 2 ? 'How' : ' how'} many apples has ${i % seeds}?`,
        response: `The answer is ${i}.`,
      }));
    const originOf = (row: { messages: { content: string }[] }, seeds: number) =>
      Number(/\d+/.exec(row.messages[0]!.content)![0]) % seeds;

    test.each([
      ['a count', 30],
      ['a count that is no multiple of a group', 25],
      ['a share', 0.2],
      ['one row', 1],
    ])('never straddle training and validation: %s', async (_, perSource) => {
      const seeds = 20;
      const folder = `straddle-${perSource}`;
      const gsm = await importRows(`${folder}-gsm`, augmented(seeds, 10, 'GSM_Rephrased'));
      const sv = await importRows(`${folder}-sv`, augmented(seeds, 5, 'GSM_SV'));
      const sources = [
        { name: 'rephrased', source: 'a' },
        { name: 'sv', source: 'b', weight: 1 },
      ];
      const result = await build(folder, { sources, validation: { perSource } }, [gsm, sv]);
      const read = (split: 'train' | 'validation') =>
        data.request('readMixRows', { dir: join(dir, folder), split, after: -1, limit: 1000 });
      const [train, held] = [await read('train'), await read('validation')];
      const heldOrigins = new Set(held.map((row) => originOf(row, seeds)));
      expect(held.length).toBe(perSource < 1 ? 40 + 20 : perSource * 2);
      expect(train.filter((row) => heldOrigins.has(originOf(row, seeds)))).toEqual([]);
      expect(train.length).toBeGreaterThan(100);
      for (const source of result.sources)
        expect(source.rowsIn).toBe(
          source.rows +
            source.validationRows +
            Object.values(source.rejectedByReason).reduce((sum, n) => sum + n, 0),
        );
    });
  });

  test('asking for more rows than there are is refused, with the number that can be had', async () => {
    const a = { dir: join(dir, 'a'), contentHash: 'x' };
    await expect(
      build('mix4', { sources: [{ name: 'a', source: 'a', count: 91 }] }, [a]),
    ).rejects.toMatchObject({
      code: 'no_rows',
      message: expect.stringContaining('90'),
    });
    expect(existsSync(join(dir, 'mix4'))).toBe(false);
  });

  test('filters that leave nothing are refused by source', async () => {
    const a = { dir: join(dir, 'a'), contentHash: 'x' };
    await expect(
      build('mix5', { sources: [{ name: 'a', source: 'a', filter: { minAnswerChars: 1000 } }] }, [a]),
    ).rejects.toMatchObject({ code: 'no_rows', place: { field: 'sources[0]' } });
  });
});

test('a data process that is killed fails its requests and starts again', async () => {
  const killed = createDataProcess();
  await importRows('again', [question(1)]);
  const request = killed.request('readSourceRows', { dir: join(dir, 'again'), after: -1, limit: 1 });
  process.kill(killed.pid!, 'SIGKILL');
  await expect(request).rejects.toMatchObject({ code: 'engine_died' });
  expect(
    await killed.request('readSourceRows', { dir: join(dir, 'again'), after: -1, limit: 1 }),
  ).toHaveLength(1);
  await killed.close();
});

test('a request that does not notice its cancelling is ended with its process; others are asked again', async () => {
  const entry = join(dir, 'stuck.mjs');
  // Answers "hashFile" after a while and everything else never.
  writeFileSync(
    entry,
    `setInterval(() => process.send({ type: 'beat' }), 100);
     process.on('disconnect', () => process.exit(0));
     process.on('message', ({ type, id, name }) => {
       if (type === 'request' && name === 'hashFile')
         setTimeout(() => process.send({ type: 'result', id, result: { hash: String(process.pid) } }), 1500);
     });`,
  );
  const stuck = createDataProcess(entry, undefined, 300);
  const cancel = new AbortController();
  const endless = stuck.request('hashModel', { dir: '/m' }, { signal: cancel.signal });
  const beside = stuck.request('hashFile', { path: '/f' });
  const first = stuck.pid;
  cancel.abort();
  await expect(endless).rejects.toMatchObject({
    code: 'cancelled',
    message: expect.stringMatching(/did not stop within 0.3 s.*nothing half-written is kept/) as string,
  });
  const { hash } = await beside;
  expect(hash).not.toBe(String(first));
  expect(hash).toBe(String(stuck.pid));
  await stuck.close();
});
