/** Plans through the command line: forwards, backwards, and held to what runs then took. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Plan, Prediction, Run } from '../core/shared/run/run.ts';
import { writeRandomModel } from './support/randomModel.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

interface Backwards {
  vary: string;
  memoryBytes: number;
  largest: { value: number; totalMemoryBytes: number } | null;
  most: number;
}

describe.runIf(needs('addon', 'plans through the command line'))('plans', () => {
  let caravan: CaravanHome;
  const settings: Record<string, unknown> = {
    mix: 'sums',
    method: 'pesc',
    baseDtype: 'f32',
    computeDtype: 'f32',
    numExperts: 4,
    loraRank: 4,
    adapterDim: 8,
    batchSize: 8,
    microBatchSize: 2,
    seqLen: 64,
    maxSteps: 3,
    keepCheckpoints: 2,
    threads: 1,
  };
  const write = (name: string, more: Record<string, unknown> = {}) =>
    caravan.write(
      name,
      Object.entries({ ...settings, ...more })
        .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
        .join(''),
    );
  const planned = (name: string) => caravan.json<Plan>('plan', name, '--no-probe');

  beforeAll(async () => {
    caravan = makeCaravanHome();
    settings['model'] = writeRandomModel(`${caravan.folder}/tiny`);
    caravan.write(
      'sums.jsonl',
      Array.from(
        { length: 24 },
        (_, i) => `${JSON.stringify({ question: `${i} + 1?`, answer: `${i + 1}` })}\n`,
      ).join(''),
    );
    await caravan.json('import', 'sums.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: sums\nseed: 3\nmodel: ${JSON.stringify(settings['model'])}\nseqLen: 64\nsources: [{ name: sums, source: sums, count: 20 }]\n`,
    );
    await caravan.json('mix', 'recipe.yaml', '--out', 'mix');
    write('run.yaml', { name: 'planned' });
  }, 120_000);
  afterAll(() => caravan.endHost());

  test('says what memory and disk a run will take', async () => {
    const plan = await planned('run.yaml');
    expect(plan.totalMemoryBytes).toBe(plan.memory.reduce((sum, { bytes }) => sum + bytes, 0));
    expect(plan.diskBytes).toBe(4 * plan.checkpointBytes); // two kept, the best, one being written
    expect(plan.freeDiskBytes).toBeGreaterThan(plan.diskBytes!);
    expect(plan.track).toBeNull();
  });

  test.each([
    ['batch', 'microBatchSize'],
    ['length', 'seqLen'],
    ['adapter', 'adapterDim'],
    ['rank', 'loraRank'],
  ])('asked for the largest %s, names the value that fits, and the next does not', async (word, field) => {
    const memoryGib = 0.15;
    const found = await caravan.json<Backwards>(
      ...['plan', 'run.yaml', '--largest', word, '--memory-gib', String(memoryGib)],
    );
    expect(found).toMatchObject({ vary: field, memoryBytes: memoryGib * 2 ** 30 });
    const value = found.largest!.value;
    write('largest.yaml', { [field]: value });
    expect((await planned('largest.yaml')).totalMemoryBytes).toBe(found.largest!.totalMemoryBytes);
    expect(found.largest!.totalMemoryBytes).toBeLessThanOrEqual(found.memoryBytes);
    if (value === found.most) return;
    write('larger.yaml', { [field]: value + 1 });
    expect((await planned('larger.yaml')).totalMemoryBytes).toBeGreaterThan(found.memoryBytes);
  });

  test('says so where nothing fits', async () => {
    const result = await caravan.run('plan', 'run.yaml', '--largest', 'batch', '--memory-gib', '0.001');
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('no microBatchSize fits into 1.02 MiB');
  });

  test('is kept with the run and held to what it took', async () => {
    const plan = await planned('run.yaml');
    await caravan.json<Run>('train', 'run.yaml');
    const { prediction } = await caravan.json<{ prediction: Prediction }>('runs', 'show', 'planned');
    expect(prediction.memoryBytes.planned).toBe(plan.totalMemoryBytes);
    const share = prediction.memoryBytes.actual! / plan.totalMemoryBytes;
    expect(share).toBeGreaterThan(0.5);
    expect(share).toBeLessThan(2);
    const checkpoint = prediction.checkpointBytes;
    expect(checkpoint.planned).toBe(plan.checkpointBytes);
    expect(checkpoint.actual! / checkpoint.planned!).toBeGreaterThan(0.9);
    expect(checkpoint.actual! / checkpoint.planned!).toBeLessThan(1.2); // names and sizes: much, beside so little
    const shown = await caravan.run('runs', 'show', 'planned');
    expect(shown.stdout).toMatch(/memory planned .* took .* \(\d+\.\d %\)/);
    expect((await planned('run.yaml')).track).toEqual({ runs: 1, least: share, most: share });
  });
});
