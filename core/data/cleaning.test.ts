/** Cleaning and drawing, over the real process and without the addon. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, describe, expect, test } from 'vitest';
import { memoryLimit, openTestData, type ImportedSource } from '../../tests/support/dataProcess.ts';
import { recipeSchema } from '../shared/dataset/recipe.ts';

const opened = openTestData('clean');
const { dir, data, importRows } = opened;
afterAll(opened.close);

let builds = 0;
async function build(sources: ImportedSource[], fields: { sources?: object[] } & Record<string, unknown>) {
  const out = join(dir, `mix-${builds++}`);
  const result = await data.request('buildMix', {
    recipe: recipeSchema.parse({
      name: 'mix',
      ...fields,
      sources: sources.map((_, i) => ({ name: `s${i}`, source: `s${i}`, ...fields.sources?.[i] })),
    }),
    sources,
    benchmarks: [],
    tokenizer: null,
    outDir: out,
    memoryLimit,
    threads: 1,
  });
  return { out, result };
}

async function query<R>(sql: string): Promise<R[]> {
  const connection = await (await DuckDBInstance.create(':memory:')).connect();
  const reader = await connection.runAndReadAll(sql);
  const rows = reader.getRowObjectsJson() as R[];
  connection.closeSync();
  return rows;
}
const table = (out: string, name: string) => `read_parquet('${join(out, `${name}.parquet`)}')`;

/** Every row of every source is in the mix or in the rejects, once; the counts say the same. */
async function expectNothingLost(
  out: string,
  result: Awaited<ReturnType<typeof build>>['result'],
  rowsIn: number,
) {
  const [lines] = await query<Record<string, string>>(
    `SELECT count(*) AS rows, count(DISTINCT (source, file, line)) AS known FROM (
       SELECT DISTINCT source, file, line FROM ${table(out, 'mix')}
       UNION ALL SELECT source, file, line FROM ${table(out, 'rejects')})`,
  );
  expect(lines).toEqual({ rows: String(rowsIn), known: String(rowsIn) });
  expect(result.sources.reduce((sum, source) => sum + source.rowsIn, 0)).toBe(rowsIn);
}

const prose = 'The answer is what it is, and that is all that can be said of it in this place.';
const rows = [
  { question: 'What is long?', answer: prose },
  { question: 'What is short?', answer: 'No.' },
  { question: 'Can you help?', answer: `I’m sorry, but I can’t do that. ${prose}` },
  { question: 'Who are you?', answer: `${prose} I was made by OpenAI.` },
  {
    question: 'Was ist das hier für ein Text?',
    answer: 'Das ist ein Satz, der nicht auf Englisch ist, und er steht hier mit Absicht für den Test.',
  },
  { question: 'Write code.', answer: '```python\nx = [i ** 2 for i in range(10)]\nprint(x)\n```' },
];

describe('cleaning steps', () => {
  test.each([
    ['a length in characters', { step: 'length', min: 10 }, [[1, 'filtered']]],
    [
      'a length in words',
      { step: 'length', unit: 'words', min: 17 },
      [
        [1, 'filtered'],
        [5, 'filtered'],
      ],
    ],
    ['a length of the prompt', { step: 'length', of: 'prompt', max: 20 }, [[4, 'filtered']]],
    ['turns', { step: 'length', unit: 'turns', min: 2 }, 'none left'],
    ['a regular expression', { step: 'regex', pattern: '^```' }, [[5, 'filtered']]],
    [
      'one that others must match',
      { step: 'regex', pattern: 'THE ANSWER', ignoreCase: true, drop: 'others' },
      [
        [1, 'filtered'],
        [4, 'filtered'],
        [5, 'filtered'],
      ],
    ],
    [
      'SQL',
      { step: 'sql', where: "length(answer) > 3 AND prompt NOT LIKE 'Write%'" },
      [
        [1, 'filtered'],
        [5, 'filtered'],
      ],
    ],
    [
      'SQL that says neither yes nor no',
      { step: 'sql', where: 'nullif(length(answer), 3) > 0' },
      [[1, 'filtered']],
    ],
    [
      'SQL over turns and languages',
      { step: 'sql', where: "turns = 1 AND language <> 'de'" },
      [[4, 'filtered']],
    ],
    ['refusals, whatever the apostrophe', { step: 'refusals' }, [[2, 'refusal']]],
    ['refusals by the recipe’s own list', { step: 'refusals', phrases: ['no.'] }, [[1, 'refusal']]],
    ['boilerplate', { step: 'boilerplate' }, [[3, 'boilerplate']]],
    ['a language', { step: 'language', keep: ['en'] }, [[4, 'language']]],
    [
      'a language for certain',
      { step: 'language', keep: ['en'], unknown: 'drop' },
      [
        [1, 'language'],
        [4, 'language'],
        [5, 'language'],
      ],
    ],
    [
      'a language of one side',
      { step: 'language', keep: ['de'], of: 'prompt', unknown: 'drop' },
      [
        [0, 'language'],
        [1, 'language'],
        [2, 'language'],
        [3, 'language'],
        [5, 'language'],
      ],
    ],
    ['one that is off', { step: 'refusals', off: true }, []],
  ])('%s', async (_, step, rejected) => {
    const source = await importRows(rows);
    const built = build([source], { clean: [step] });
    if (rejected === 'none left') {
      await expect(built).rejects.toMatchObject({
        code: 'no_rows',
        message: "source 's0' has no row left to train on: 6 filtered (clean[0])",
        place: { field: 'sources[0]' },
        mend: expect.stringContaining('clean[0]') as string,
      });
      return;
    }
    const { out, result } = await built;
    await expectNothingLost(out, result, rows.length);
    const named = await query<{ row: string; reason: string; step: string; detail: string }>(
      `SELECT source_row AS "row", reason, step, detail FROM ${table(out, 'rejects')} ORDER BY source_row`,
    );
    expect(named.map(({ row, reason }) => [Number(row), reason])).toEqual(rejected);
    for (const one of named) {
      expect(one.step).toBe('clean[0]');
      expect(one.detail).not.toBe('');
    }
  });

  test('each row goes by the first step that leaves it out: the recipe’s, then the source’s own', async () => {
    const source = await importRows(rows);
    const { out } = await build([source, source], {
      dedup: 'none',
      clean: [{ step: 'length', min: 10 }, { step: 'boilerplate' }],
      sources: [{ clean: [{ step: 'refusals' }] }, { labels: [''], filter: { minAnswerChars: 5 } }],
    });
    const named = await query(
      `SELECT source, source_row::INT AS "row", step, detail FROM ${table(out, 'rejects')} ORDER BY source, source_row`,
    );
    expect(named).toEqual([
      {
        source: 's0',
        row: 1,
        step: 'clean[0]',
        detail: '3 characters; wanted: answer: at least 10 characters',
      },
      { source: 's0', row: 2, step: 'sources[0].clean[0]', detail: 'says "i\'m sorry, but i can\'t"' },
      { source: 's0', row: 3, step: 'clean[1]', detail: 'says "openai"' },
      { source: 's1', row: 1, step: 'sources[1].filter', detail: 'answer shorter than 5 characters' },
      { source: 's1', row: 3, step: 'clean[1]', detail: 'says "openai"' },
    ]);
  });

  test.each([
    ["read_text('/etc/passwd') IS NOT NULL", 'clean[0].where', /does not exist|table function/i],
    ["(SELECT count(*) FROM read_text('/etc/hostname')) = 0", 'clean[0].where', /a query inside it/],
    [
      "true); COPY rows TO '/tmp/x.csv'; SELECT (true",
      'clean[0].where',
      /not valid SQL|more than one statement/,
    ],
    ['true), (true', 'clean[0].where', /more than a condition/],
    ['random() < 0.5', 'clean[0].where', /random\(\)/],
    ['created < current_date', 'clean[0].where', /current_date/],
    ['row_number() OVER () < 5', 'clean[0].where', /window function/],
    ['lenght(answer) > 2', 'clean[0].where', /lenght/],
    ['anwser = 1', 'clean[0].where', /anwser/],
    ['length(answer >', 'clean[0].where', /not valid SQL/],
    ['CAST(answer AS INTEGER) > 3', 'clean[0].where', /convert/i],
  ])('SQL that is no condition over a row is refused: %s', async (where, field, message) => {
    const source = await importRows(rows);
    await expect(build([source], { clean: [{ step: 'sql', where }] })).rejects.toMatchObject({
      code: 'bad_recipe',
      place: { field },
      message: expect.stringMatching(message) as string,
    });
  });

  test('a bad regular expression is named', async () => {
    const source = await importRows(rows);
    await expect(build([source], { clean: [{ step: 'regex', pattern: '(' }] })).rejects.toMatchObject({
      code: 'bad_recipe',
      place: { field: 'clean[0]' },
    });
  });
});

describe('a preview', () => {
  test('counts each step with examples, says what would stop the build, and writes no mix', async () => {
    const source = await importRows([...rows, { question: 'Empty?', answer: '' }, rows[0]!]);
    const outDir = join(dir, 'preview');
    const recipe = recipeSchema.parse({
      name: 'mix',
      sources: [{ name: 's0', source: 's0', count: 5 }],
      clean: [{ step: 'length', min: 10 }, { step: 'refusals' }, { step: 'language', keep: ['en', 'de'] }],
    });
    const request = {
      recipe,
      sources: [source],
      benchmarks: [],
      tokenizer: null,
      outDir,
      memoryLimit,
      threads: 1,
    };
    const preview = await data.request('previewMix', request);
    expect(preview.sources).toMatchObject([
      { name: 's0', rowsIn: 8, available: 4, rows: 4, validationRows: 0, tokens: null },
    ]);
    expect(preview.sources[0]!.steps.map(({ step, reason, rejected }) => [step, reason, rejected])).toEqual([
      ['import', 'empty_answer', 1],
      ['clean[0]', 'filtered', 1],
      ['clean[1]', 'refusal', 1],
      ['clean[2]', 'language', 0],
      ['dedup', 'duplicate', 1],
      ['draw', 'not_sampled', 0],
    ]);
    expect(preview.sources[0]!.steps[2]!.examples).toMatchObject([
      {
        sourceRow: 2,
        line: 3,
        prompt: 'Can you help?',
        answer: expect.stringContaining('I’m sorry') as string,
      },
    ]);
    expect(preview.problems).toMatchObject([
      { field: 'sources[0].count', message: expect.stringContaining('has 4') as string },
    ]);
    const rejects = (more: object = {}) =>
      data.request('readMixRejects', { dir: outDir, after: -1, limit: 10, ...more });
    expect(await rejects()).toHaveLength(4);
    expect(await rejects({ step: 'clean[1]' })).toMatchObject([{ sourceRow: 2, reason: 'refusal', line: 3 }]);
    expect(existsSync(join(outDir, 'mix.parquet'))).toBe(false);
    // What the preview says is what the build does.
    const { result } = await build([source], { clean: recipe.clean });
    expect(result.sources[0]).toMatchObject({
      rows: 4,
      rejectedByReason: { filtered: 1, refusal: 1, duplicate: 1, empty_answer: 1 },
    });
  });
});

describe('turns out of order', () => {
  const turns = (...said: [string, string][]) => ({
    conversations: said.map(([from, value]) => ({ from, value })),
  });
  const unordered = [
    turns(['human', 'a?'], ['gpt', 'a.']),
    turns(['gpt', 'Hello!'], ['human', 'b?'], ['gpt', 'b.'], ['human', 'Thanks.']),
    turns(['human', 'c?'], ['human', 'Please.'], ['gpt', 'c.'], ['gpt', 'More.'], ['system', 'Be brief.']),
    turns(['human', 'no answer?']),
    turns(['gpt', 'no question.'], ['gpt', 'none.']),
  ];

  test('are mended where the recipe asks for it, and set aside else', async () => {
    const source = await importRows(unordered);
    const plain = await build([source], {});
    expect(plain.result.sources[0]).toMatchObject({ rowsIn: 5, rows: 1 });
    await expectNothingLost(plain.out, plain.result, 5);
    const { out, result } = await build([source], { clean: [{ step: 'roles' }] });
    expect(result.sources[0]).toMatchObject({ rowsIn: 5, rows: 3 });
    await expectNothingLost(out, result, 5);
    const mended = await query<{ line: string; messages: string }>(
      `SELECT line, messages FROM ${table(out, 'mix')} ORDER BY line`,
    );
    expect(mended.map(({ messages }) => JSON.parse(messages) as unknown)).toEqual([
      [
        { role: 'user', content: 'a?' },
        { role: 'assistant', content: 'a.' },
      ],
      [
        { role: 'user', content: 'b?' },
        { role: 'assistant', content: 'b.' },
      ],
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'c?\n\nPlease.' },
        { role: 'assistant', content: 'c.\n\nMore.' },
      ],
    ]);
  });
});

describe('drawing', () => {
  const many = (n: number, from = 0) =>
    Array.from({ length: n }, (_, i) => ({
      type: `kind${i % 10 < 6 ? 'A' : i % 10 < 9 ? 'B' : 'C'}`,
      query: `What is ${from + i}?`,
      original_question: `${from + i}`,
      response: `It is ${from + i}.`,
    }));
  const kinds = (out: string) =>
    query(`SELECT label, count(*)::INT AS n FROM ${table(out, 'mix')} GROUP BY label ORDER BY label`);

  test('with replacement only where it is asked: each row once more before any comes a third time', async () => {
    const source = await importRows(many(10));
    await expect(build([source], { sources: [{ count: 25 }] })).rejects.toMatchObject({
      code: 'no_rows',
      place: { field: 'sources[0].count' },
      mend: expect.stringMatching(/at most 10; or whenShort: scale .*topUp.*replacement/) as string,
    });
    const { out, result } = await build([source], { sources: [{ count: 25, replacement: true }] });
    expect(result.sources[0]).toMatchObject({ rowsIn: 10, rows: 25, repeatedRows: 15 });
    await expectNothingLost(out, result, 10);
    const times = await query(
      `SELECT n::INT AS n, count(*)::INT AS rows FROM (SELECT source_row, count(*) AS n FROM ${table(out, 'mix')} GROUP BY source_row) GROUP BY n ORDER BY n`,
    );
    expect(times).toEqual([
      { n: 2, rows: 5 },
      { n: 3, rows: 5 },
    ]);
    expect(await query(`SELECT count(DISTINCT "row")::INT AS n FROM ${table(out, 'mix')}`)).toEqual([
      { n: 25 },
    ]);
  });

  test('by kinds: as they come, equal, by shares', async () => {
    const source = await importRows(many(100));
    const counts = async (stratify: object) =>
      kinds((await build([source], { sources: [{ count: 30, stratify }] })).out);
    expect(await counts({})).toEqual([
      { label: 'kindA', n: 18 },
      { label: 'kindB', n: 9 },
      { label: 'kindC', n: 3 },
    ]);
    expect(await counts({ how: 'equal' })).toEqual([
      { label: 'kindA', n: 10 },
      { label: 'kindB', n: 10 },
      { label: 'kindC', n: 10 },
    ]);
    expect(await counts({ shares: { kindA: 1, kindC: 4 } })).toEqual([
      { label: 'kindA', n: 20 },
      { label: 'kindC', n: 10 },
    ]);
  });

  test('a size by weights; a short source scales the mix or is topped up, and the bytes repeat', async () => {
    const [a, b] = [await importRows(many(60)), await importRows(many(40, 1000))];
    const fields = (more: object) => ({
      size: { rows: 90 },
      sources: [{ weight: 1 }, { weight: 1 }],
      ...more,
    });
    await expect(build([a, b], fields({}))).rejects.toMatchObject({ place: { field: 'size' } });
    const rowsOf = ({ result }: Awaited<ReturnType<typeof build>>) => result.sources.map(({ rows }) => rows);
    expect(rowsOf(await build([a, b], fields({ whenShort: 'scale' })))).toEqual([40, 40]);
    const one = await build([a, b], fields({ whenShort: 'topUp' }));
    const two = await build([a, b], fields({ whenShort: 'topUp' }));
    expect(rowsOf(one)).toEqual([50, 40]);
    const hash = (out: string) =>
      createHash('sha256')
        .update(readFileSync(join(out, 'mix.parquet')))
        .digest('hex');
    expect(hash(two.out)).toBe(hash(one.out));
    await expectNothingLost(one.out, one.result, 100);
  });
});
