/** A run for which memory ends although it was planned to fit: it fails with a card, and its host and engine go on. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../core/shared/run/run.ts';
import { writeRandomModel } from './support/randomModel.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

describe.runIf(needs('addon', 'a run that runs out of memory'))('a run that runs out of memory', () => {
  let caravan: CaravanHome;
  const write = (name: string, adapterDim: number) =>
    caravan.write(
      `${name}.yaml`,
      [
        `name: ${name}`,
        'model: tiny',
        'mix: sums',
        'baseDtype: f32',
        'computeDtype: f32',
        'numExperts: 4',
        'loraRank: 4',
        `adapterDim: ${adapterDim}`,
        'batchSize: 4',
        'seqLen: 64',
        'maxSteps: 2',
        'threads: 1',
        '',
      ].join('\n'),
    );

  beforeAll(async () => {
    // What the engine's buffers may hold together; the plan knows nothing of it.
    caravan = makeCaravanHome({ CARAVAN_MEMORY_LIMIT_MIB: '24' });
    await caravan.json('model', 'add', writeRandomModel(`${caravan.folder}/tiny`));
    caravan.write(
      'sums.jsonl',
      Array.from(
        { length: 16 },
        (_, i) => `${JSON.stringify({ question: `${i} + 1?`, answer: `${i + 1}` })}\n`,
      ).join(''),
    );
    await caravan.json('import', 'sums.jsonl');
    caravan.write(
      'recipe.yaml',
      'name: sums\nseed: 3\nmodel: tiny\nseqLen: 64\nsources: [{ name: sums, source: sums, count: 12 }]\n',
    );
    await caravan.json('mix', 'recipe.yaml', '--out', 'mix');
  }, 120_000);
  afterAll(() => caravan.endHost());

  test('fails by name, with a card that says what to lower; the next one that fits trains', async () => {
    write('large', 8192);
    const { code, stderr } = await caravan.run('train', 'large.yaml');
    expect(code).toBe(3);
    expect(stderr).toMatch(/lower microBatchSize/);
    const large = await caravan.json<Run>('runs', 'show', 'large');
    expect(large).toMatchObject({
      state: 'failed',
      error: { code: 'out_of_memory' },
      crash: {
        exitCode: null,
        signal: null,
        line: expect.stringContaining('out of memory') as string,
        advice: expect.stringMatching(/ran out of memory: lower .* No checkpoint was written yet/) as string,
      },
    });
    write('small', 8);
    await caravan.json('train', 'small.yaml');
    expect((await caravan.json<Run>('runs', 'show', 'small')).state).toBe('completed');
  }, 120_000);
});
