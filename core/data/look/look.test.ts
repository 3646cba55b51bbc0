import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { lookQuerySchema, type LookQuery } from '../../shared/dataset/look.ts';
import { importSource } from '../importSource.ts';
import { describeLook } from './describeLook.ts';
import type { LookFiles } from './lookProtocol.ts';
import { closeLook, countLook, findLook, readLook } from './openLook.ts';
import { prepareLook } from './prepareLook.ts';
import { previewImport } from './previewImport.ts';
import { readRawRow, readRow } from './readRow.ts';
import { searchTerms } from './searchTerms.ts';

const folder = mkdtempSync(join(tmpdir(), 'look-'));
const never = new AbortController().signal;
const rowCount = 3000;

/** Question and answer of row `i`; each seventh repeats the words of the one before it. */
function row(i: number): { question: string; answer: string } {
  const n = i % 7 === 0 && i > 0 ? i - 1 : i;
  return {
    question: `What does the "content" of box ${n} weigh?\nSay it in stones.`,
    answer: `Box ${n} weighs ${'much '.repeat(n % 13)}${n % 100 === 42 ? 'like an Élan' : ''} indeed.`,
  };
}
const repeated = Math.floor((rowCount - 1) / 7);

describe('looking at a source', () => {
  let files: LookFiles;
  const query = (partial: Partial<LookQuery> = {}) => lookQuerySchema.parse(partial);
  const count = async (partial: Partial<LookQuery>) =>
    (await countLook({ files, query: query(partial) }, { onShare: () => undefined, cancelled: never })).total;

  beforeAll(async () => {
    const lines = Array.from({ length: rowCount }, (_, i) => JSON.stringify(row(i)));
    lines.splice(10, 0, '{"question": "no answer"}', 'not json');
    writeFileSync(join(folder, 'boxes.jsonl'), `${lines.join('\n')}\n`);
    const outDir = join(folder, 'source');
    await importSource(
      { files: [join(folder, 'boxes.jsonl')], format: 'auto', outDir, memoryLimit: '192MB' },
      () => undefined,
      never,
    );
    files = {
      kind: 'source',
      rows: join(outDir, 'rows.parquet'),
      rejects: join(outDir, 'rejects.parquet'),
      index: join(folder, 'index.duckdb'),
      measures: null,
    };
    const { rows, rejects } = files;
    const made = await prepareLook(
      { kind: 'source', rows, rejects, out: files.index },
      () => undefined,
      never,
    );
    expect(made).toEqual({ rows: rowCount, rejects: 2 });
  });

  test('a window holds its rows by their keys, the last one what is left', async () => {
    const first = await readLook({ files, query: query(), from: 0, count: 3 });
    expect(first.total).toBe(rowCount);
    expect(first.rows.map(({ key, line }) => [key, line])).toEqual([
      [0, 1],
      [1, 2],
      [2, 3],
    ]);
    expect(first.rows[0]).toMatchObject({ turns: 1, system: false, tokens: null });
    const last = await readLook({ files, query: query(), from: rowCount - 2, count: 100 });
    expect(last.rows.map(({ key, line }) => [key, line])).toEqual([
      [rowCount - 2, rowCount + 1],
      [rowCount - 1, rowCount + 2],
    ]);
    expect((await readLook({ files, query: query(), from: rowCount, count: 10 })).rows).toEqual([]);
  });

  test('search: words in any case, phrases, absence; no name of a field is found', async () => {
    expect(await count({ search: 'WEIGHS' })).toBe(rowCount);
    expect(await count({ search: 'assistant' })).toBe(0);
    expect(await count({ search: 'content' })).toBe(rowCount);
    const elan = Array.from({ length: rowCount }, (_, i) => row(i)).filter((r) => r.answer.includes('Élan'));
    expect(await count({ search: 'élan' })).toBe(elan.length);
    expect(await count({ search: 'an élan -"box 42 "' })).toBe(
      elan.filter(({ question }) => !question.includes('box 42 ')).length,
    );
    expect(await count({ search: '-élan' })).toBe(rowCount - elan.length);
    const found = await readLook({ files, query: query({ search: 'élan' }), from: 0, count: 5 });
    expect(found.rows.map(({ key }) => key)).toEqual(
      Array.from({ length: rowCount }, (_, i) => i)
        .filter((i) => row(i).answer.includes('Élan'))
        .slice(0, 5),
    );
    expect(found.rows[0]!.found).toContain('like an Élan');
    // The text around is text: no JSON, no escapes.
    const asked = await readLook({ files, query: query({ search: 'stones' }), from: 7, count: 1 });
    expect(asked.rows[0]!.found).toMatch(
      /^What does the "content" of box 6 weigh\? Say it in stones\. · Box 6 weighs much/,
    );
  });

  test('filters and orders, and where a row then stands', async () => {
    expect(await count({ filters: [{ kind: 'flag', column: 'duplicate', value: true }] })).toBe(repeated);
    const long = query({
      filters: [{ kind: 'range', column: 'answerChars', min: 60 }],
      sort: { column: 'answerChars', descending: true },
    });
    const window = await readLook({ files, query: long, from: 0, count: 500 });
    const chars = window.rows.map(({ answerChars }) => answerChars);
    expect(chars).toEqual([...chars].sort((a, b) => b - a));
    expect(Math.min(...chars)).toBeGreaterThanOrEqual(60);
    const { key } = window.rows[123]!;
    expect(await findLook({ files, query: long, key })).toEqual({ position: 123 });
    const short = window.rows.length > 0 ? await findLook({ files, query: long, key: 1 }) : null;
    expect(short).toEqual({ position: null });
    await expect(
      readLook({ files, query: query({ sort: { column: 'reason', descending: false } }), from: 0, count: 1 }),
    ).rejects.toMatchObject({ code: 'bad_option' });
  });

  test('what was set aside, with file, line, field and reason', async () => {
    const { rejects, total } = await readLook({
      files,
      query: query({ table: 'rejects' }),
      from: 0,
      count: 9,
    });
    expect(total).toBe(2);
    expect(rejects.map(({ file, line, reason }) => [file, line, reason])).toEqual([
      ['boxes.jsonl', 11, 'missing_field'],
      ['boxes.jsonl', 12, 'malformed_json'],
    ]);
    expect(await count({ table: 'rejects', search: 'answer' })).toBe(1);
    expect(
      await count({
        table: 'rejects',
        filters: [{ kind: 'oneOf', column: 'reason', values: ['malformed_json'] }],
      }),
    ).toBe(1);
  });

  test('statistics count every row once in each histogram', async () => {
    const { all, groups, values } = await describeLook({ files });
    expect(all).toMatchObject({ rows: rowCount, duplicates: repeated, withSystem: 0, fates: null });
    for (const spread of [all.turns, all.promptChars, all.answerChars])
      expect(spread.bins.reduce((sum, { rows }) => sum + rows, 0)).toBe(rowCount);
    expect(all.rejectedByReason).toEqual({ missing_field: 1, malformed_json: 1 });
    const lengths = Array.from({ length: rowCount }, (_, i) => row(i).answer.length).sort((a, b) => a - b);
    expect(all.answerChars).toMatchObject({ min: lengths[0], max: lengths.at(-1) });
    expect(all.answerChars.sum).toBe(lengths.reduce((sum, length) => sum + length, 0));
    expect(groups.map(({ name, rows }) => [name, rows])).toEqual([['', rowCount]]);
    expect(values.find(({ column }) => column === 'file')!.top).toEqual([
      { value: 'boxes.jsonl', rows: rowCount },
    ]);
  });

  test('a row whole, the row it repeats, and the line it came from', async () => {
    const { messages, duplicateOf } = await readRow({ files, key: 14 });
    expect(messages[0]!.content).toBe(row(14).question);
    expect(duplicateOf).toBe(13);
    const raw = (file: string) => readRawRow({ file, line: 17, format: 'question-answer', messages });
    expect(await raw(join(folder, 'boxes.jsonl'))).toEqual({
      text: JSON.stringify(row(14)),
      unchanged: true,
      problem: null,
    });
    writeFileSync(join(folder, 'other.jsonl'), `${JSON.stringify(row(3))}\n`.repeat(20));
    expect(await raw(join(folder, 'other.jsonl'))).toMatchObject({ unchanged: false });
    expect((await raw(join(folder, 'gone.jsonl'))).problem).toContain('no longer there');
    await expect(readRow({ files, key: rowCount })).rejects.toMatchObject({ code: 'not_found' });
  });

  test('an index that is let go of is opened again', async () => {
    await closeLook({ index: files.index });
    expect(await count({})).toBe(rowCount);
  });

  test('a search that is cancelled says so, and can be asked again', async () => {
    const abort = new AbortController();
    abort.abort();
    const asked = countLook(
      { files, query: query({ search: 'stones box' }) },
      { onShare: () => undefined, cancelled: abort.signal },
    );
    // It may be done before it is looked at: then it counted.
    await asked.then(
      ({ total }) => expect(total).toBe(rowCount),
      (error: unknown) => expect(error).toMatchObject({ code: 'cancelled' }),
    );
    expect(await count({ search: 'stones box' })).toBe(rowCount);
  });
});

describe('a preview of an import', () => {
  test('says what the files look like, and shows sound and unsound rows as they stand', async () => {
    const preview = await previewImport({ files: [join(folder, 'boxes.jsonl')], format: 'auto' });
    expect(preview).toMatchObject({
      guess: 'question-answer',
      format: 'question-answer',
      columns: ['question', 'answer'],
    });
    expect(preview.notes.join()).toContain('2 of 200 rows that were looked at would be set aside');
    expect(preview.rows.filter(({ problem }) => problem)).toHaveLength(2);
    expect(preview.rows[0]!.messages!.map(({ role }) => role)).toEqual(['user', 'assistant']);
  });

  test('own columns are read as they are mapped, before anything is imported', async () => {
    const file = join(folder, 'own.jsonl');
    writeFileSync(file, `${JSON.stringify({ frage: 'Wie viel?', antwort: 'Drei.', art: 'kurz' })}\n`);
    const unknown = await previewImport({ files: [file], format: 'auto' });
    expect(unknown).toMatchObject({ guess: null, format: null, columns: ['frage', 'antwort', 'art'] });
    const mapping = { prompt: 'frage', answer: 'antwort', label: 'art' };
    const mapped = await previewImport({ files: [file], format: 'mapping', mapping });
    expect(mapped.rows[0]).toMatchObject({ label: 'kurz', problem: null });
    expect(mapped.rows[0]!.messages!.map(({ content }) => content)).toEqual(['Wie viel?', 'Drei.']);
  });

  test('a file that is not there is named', async () => {
    await expect(previewImport({ files: [join(folder, 'none')], format: 'auto' })).rejects.toMatchObject({
      code: 'not_found',
    });
  });
});

test('search terms', () => {
  expect(searchTerms('Two "a Phrase" -not -"nor this" -')).toEqual([
    { text: 'two', absent: false },
    { text: 'a phrase', absent: false },
    { text: 'not', absent: true },
    { text: 'nor this', absent: true },
    { text: '-', absent: false },
  ]);
});
