/** The stand-ins of IDAE's sources, small: what was planted in them is found, and no row is lost. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDataProcess, type DataProcess } from '../core/data/client.ts';
import { recipeSchema } from '../core/shared/dataset/recipe.ts';
import {
  fullScaleFiles,
  fullScaleRows,
  writeFullScale,
  type FullScaleSource,
  type Planted,
} from './scale/fullScale.ts';
import { needs } from './support/skip.ts';

const scale = 0.02;
const memoryLimit = '512MB';

describe.runIf(needs('addon'))('IDAE in small', () => {
  const dir = mkdtempSync(join(tmpdir(), 'caravan-idae-'));
  const names = Object.keys(fullScaleRows) as FullScaleSource[];
  const leaks = Array.from({ length: 3 }, (_, i) =>
    Array.from({ length: 20 }, (_, word) => `benchmark${i}word${word}`).join(' '),
  );
  const planted = {} as Record<FullScaleSource, Planted>;
  let data: DataProcess;
  beforeAll(async () => {
    data = createDataProcess();
    for (const name of names) planted[name] = await writeFullScale(name, dir, { scale, leaks });
  }, 400_000);
  afterAll(async () => {
    await data.close();
    rmSync(dir, { recursive: true });
  });

  test(
    'every planted leak, defect and repetition is accounted for; rows in = kept + rejected',
    { timeout: 400_000 },
    async () => {
      const sources = [];
      for (const name of names) {
        const outDir = join(dir, name);
        const files = [join(dir, fullScaleFiles[name])];
        const result = await data.request('importSource', { files, format: 'auto', outDir, memoryLimit });
        expect(result.rowsIn).toBe(planted[name].rows);
        expect(result.rejectedByReason['malformed_json'] ?? 0).toBe(planted[name].malformed);
        sources.push({ dir: outDir, contentHash: result.contentHash });
      }
      const benchmark = join(dir, 'benchmark.jsonl');
      writeFileSync(benchmark, leaks.map((q) => JSON.stringify({ q })).join('\n'));
      const outDir = join(dir, 'mix');
      const recipe = recipeSchema.parse({
        name: 'idae',
        dedup: 'near',
        clean: [{ step: 'refusals' }],
        decontaminate: { benchmarks: [{ path: 'benchmark.jsonl', format: 'own', columns: { prompt: 'q' } }] },
        validation: { perSource: 10 },
        sources: names.map((name) => ({ name, source: name, weight: name === 'slimorca' ? 2 : 1 })),
      });
      const result = await data.request('buildMix', {
        recipe,
        sources,
        benchmarks: [[benchmark]],
        tokenizer: null,
        outDir,
        memoryLimit,
        threads: 2,
      });
      expect(planted.slimorca.leaked).toBeGreaterThan(5);
      // A leak in a row that exact repetition took first is gone with it.
      expect(result.contamination).toMatchObject([{ items: 3, itemsFound: 3 }]);
      const slimorca = result.sources[0]!.rejectedByReason;
      const connection = await (await DuckDBInstance.create(':memory:')).connect();
      const table = (name: string) => `read_parquet('${join(outDir, `${name}.parquet`)}')`;
      const query = async (sql: string) => (await connection.runAndReadAll(sql)).getRowObjectsJson();
      expect(
        await query(
          `SELECT count(*)::INT AS n FROM ${table('mix')} WHERE messages LIKE '%benchmark_word0 %'`,
        ),
      ).toEqual([{ n: 0 }]);
      expect(slimorca['refusal']).toBeGreaterThanOrEqual(planted.slimorca.refusals);
      // Of repetitions of rows that went for another reason, the first stays.
      expect(slimorca['duplicate']).toBeGreaterThan(planted.slimorca.exact * 0.95);
      expect(slimorca['near_duplicate']).toBeGreaterThan(planted.slimorca.near * 0.95);
      expect(slimorca['near_duplicate']).toBeLessThan(planted.slimorca.near * 1.05);
      expect(
        await query(`SELECT source, count(*)::INT AS rows, count(DISTINCT (file, line))::INT AS lines FROM (
        SELECT source, file, line FROM ${table('mix')} UNION ALL SELECT source, file, line FROM ${table('rejects')}) GROUP BY source ORDER BY source`),
      ).toEqual(
        [...names]
          .sort()
          .map((source) => ({ source, rows: planted[source].rows, lines: planted[source].rows })),
      );
      connection.closeSync();
    },
  );
});
