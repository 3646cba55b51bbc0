import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, describe, expect, test } from 'vitest';
import { memoryLimit, openTestData } from '../../tests/support/dataProcess.ts';
import { needs } from '../../tests/support/skip.ts';
import { recipeSchema } from '../shared/dataset/recipe.ts';
import type { DataProgress } from './protocol.ts';

interface Row {
  question: string;
  answer: string;
}

/** Answers of 60 words, from a generator that is the same everywhere. */
function generator(seed: number) {
  let state = seed;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
  return {
    next,
    row: (): Row => ({
      question: `Question ${next()}?`,
      answer: Array.from({ length: 60 }, () => `w${next() % 4096}`).join(' '),
    }),
    /** With `changed` words of the answer replaced, those before word `end`. */
    variant: (row: Row, changed: number, end = 60): Row => ({
      question: row.question,
      answer: row.answer
        .split(' ')
        .map((word, index) => (index < end - changed || index >= end ? word : `x${next()}`))
        .join(' '),
    }),
  };
}

describe.runIf(needs('addon'))('near-duplicates of a mix', () => {
  const opened = openTestData('near');
  const { dir, data, importRows } = opened;
  afterAll(opened.close);

  async function build(
    out: string,
    fields: object,
    sources: Record<string, { dir: string; contentHash: string }>,
    threads = 2,
  ) {
    const stages: DataProgress[] = [];
    const result = await data.request(
      'buildMix',
      {
        recipe: recipeSchema.parse({
          name: 'mix',
          sources: Object.keys(sources).map((name) => ({ name, source: name })),
          ...fields,
        }),
        sources: Object.values(sources),
        benchmarks: [],
        tokenizer: null,
        outDir: join(dir, out),
        memoryLimit,
        threads,
      },
      { onProgress: (progress) => stages.push(progress) },
    );
    const manifest = JSON.parse(readFileSync(join(dir, out, 'manifest.json'), 'utf8')) as {
      nearDuplicates?: Record<string, number>;
    };
    return { result, manifest, stages };
  }

  async function query<R>(sql: string): Promise<R[]> {
    const connection = await (await DuckDBInstance.create(':memory:')).connect();
    const reader = await connection.runAndReadAll(sql);
    const rows = reader.getRowObjectsJson() as R[];
    connection.closeSync();
    return rows;
  }

  test('planted ones are named with the row that stays and the similarity; every row is kept or named once', async () => {
    const make = generator(1);
    const a = Array.from({ length: 300 }, make.row);
    const b = [
      ...Array.from({ length: 100 }, make.row),
      // 62 words, 58 shingles: 5 changed words leave 53 of 63 in common, 25 leave 33 of 83.
      ...a.slice(0, 40).map((row) => make.variant(row, 5)),
      ...a.slice(40, 60).map((row) => make.variant(row, 25)),
      // The same words with other case and punctuation: exact removal takes case alone.
      { question: a[60]!.question, answer: a[60]!.answer.toUpperCase() },
      { question: a[61]!.question, answer: `${a[61]!.answer}!` },
    ];
    const sources = { a: await importRows(a, 'a'), b: await importRows(b, 'b') };
    const { result, manifest, stages } = await build('mix', { dedup: 'near' }, sources);
    expect(result.sources).toMatchObject([
      { name: 'a', rowsIn: 300, rows: 300, rejectedByReason: {} },
      { name: 'b', rowsIn: 162, rows: 120, rejectedByReason: { duplicate: 1, near_duplicate: 41 } },
    ]);
    expect(manifest.nearDuplicates).toMatchObject({
      ngram: 5,
      permutations: 240,
      bands: 24,
      rowsPerBand: 10,
      threshold: 0.7,
      seed: 42,
      clusters: 41,
      removed: 41,
    });
    expect(manifest.nearDuplicates!['candidates']).toBeGreaterThanOrEqual(82);
    expect(new Set(stages.map(({ stage }) => stage))).toContain('signing rows');

    const [rejects, kept] = ['rejects', 'mix'].map(
      (name) => `read_parquet('${join(dir, 'mix', `${name}.parquet`)}')`,
    );
    const near = await query<{ source: string; row: string; detail: string }>(
      `SELECT source, source_row AS "row", detail FROM ${rejects} WHERE reason = 'near_duplicate' ORDER BY source_row`,
    );
    const expected = [
      ...Array.from({ length: 40 }, (_, i) => [100 + i, (53 / 63).toFixed(3), i] as const),
      [161, '1.000', 61] as const,
    ].map(([row, jaccard, of]) => ({
      source: 'b',
      row: String(row),
      detail: `Jaccard ${jaccard} with row ${of} of a`,
    }));
    expect(near).toEqual(expected);
    const [rows] = await query<Record<string, string>>(
      `SELECT count(*) AS rows, count(DISTINCT (source, source_row)) AS known FROM (
         SELECT source, source_row FROM ${kept} UNION ALL SELECT source, source_row FROM ${rejects})`,
    );
    expect(rows).toEqual({ rows: '462', known: '462' });
  });

  test('the bytes depend neither on threads nor on the time; another seed shuffles and drops the same rows', async () => {
    const make = generator(2);
    const rows: Row[] = Array.from({ length: 150 }, make.row);
    // Chains of ten: each is like the one before (51 of 65 shingles), and the last unlike the first.
    for (let chain = 0; chain < 10; chain++)
      for (let row = rows[chain]!, i = 1; i < 10; i++) rows.push((row = make.variant(row, 3, 6 * i)));
    const sources = { chains: await importRows(rows, 'chains') };
    const dedup = { method: 'near', preset: 'datatrove' };
    const files = (out: string) =>
      ['manifest.json', 'mix.parquet', 'rejects.parquet'].map((name) =>
        createHash('sha256')
          .update(readFileSync(join(dir, out, name)))
          .digest('hex'),
      );
    const { result, manifest } = await build('one', { dedup }, sources, 1);
    expect(manifest.nearDuplicates).toMatchObject({ permutations: 112, bands: 14, rowsPerBand: 8 });
    expect(manifest.nearDuplicates!['removed']).toBeGreaterThan(20);
    await build('eight', { dedup }, sources, 8);
    await build('again', { dedup }, sources, 1);
    expect(files('eight')).toEqual(files('one'));
    expect(files('again')).toEqual(files('one'));
    const other = await build('shuffled', { dedup, seed: 9 }, sources);
    expect(other.result.sources).toEqual(result.sources);
    const reasons = (out: string) =>
      query(
        `SELECT source_row, detail FROM read_parquet('${join(dir, out, 'rejects.parquet')}') ORDER BY ALL`,
      );
    const details = await reasons('one');
    expect(await reasons('shuffled')).toEqual(details);
    expect(details).toContainEqual(
      expect.objectContaining({
        detail: expect.stringMatching(
          /^Jaccard 0\.[0-6]\d\d with row \d+ of chains, by way of a chain: 0\.[7-9]\d\d with row \d+ of chains$/,
        ) as string,
      }),
    );
  });

  test('what the threshold and the system prompt do', async () => {
    const make = generator(3);
    const first = make.row();
    const rows = [first, make.variant(first, 10), make.variant(first, 20)];
    const sources = { rows: await importRows(rows, 'rows') };
    const removed = async (dedup: unknown) =>
      (await build('threshold', { dedup }, sources)).result.sources[0]!.rejectedByReason['near_duplicate'] ??
      0;
    expect(await removed('exact')).toBe(0);
    expect(await removed({ method: 'near', threshold: 0.95 })).toBe(0);
    // 48 of 68 shingles and 38 of 78.
    expect(await removed({ method: 'near', threshold: 0.4 })).toBe(2);

    const system = `${make.row().answer} ${make.row().answer}`;
    const file = join(dir, 'system.jsonl');
    writeFileSync(
      file,
      ['one', 'two', 'three']
        .map((answer) =>
          JSON.stringify({
            messages: [
              { role: 'system', content: system },
              { role: 'user', content: `Say ${answer}, nothing else.` },
              { role: 'assistant', content: answer },
            ],
          }),
        )
        .join('\n'),
    );
    const outDir = join(dir, 'system');
    const { contentHash } = await data.request('importSource', {
      files: [file],
      format: 'auto',
      outDir,
      memoryLimit,
    });
    const { result } = await build('prompted', { dedup: 'near' }, { system: { dir: outDir, contentHash } });
    expect(result.rows).toBe(3);
  });
});
