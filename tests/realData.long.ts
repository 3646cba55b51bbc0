/** Real rows on real models, from import to a held-out loss that fell on every source. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { importRealRows, mixRealRows, trainOnRealRows } from './support/realRows.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs, testData } from './support/skip.ts';

const demoBase = fileURLToPath(new URL('../demo/base', import.meta.url));
const runnable = needs('addon', 'training on real rows') && needs('data', 'training on real rows');

describe.runIf(runnable)('real rows', () => {
  let caravan: CaravanHome;

  beforeAll(async () => {
    caravan = makeCaravanHome();
    await importRealRows(caravan);
  });
  afterAll(() => caravan.endHost());

  test('teach the demo base', async () => {
    await mixRealRows(caravan, { name: 'real-demo', model: demoBase, seqLen: 512, perSource: 12 });
    const losses = await trainOnRealRows(caravan, {
      name: 'real-demo',
      model: demoBase,
      mix: 'real-demo',
      baseDtype: 'nf4',
      computeDtype: 'f32',
      loraRank: 16,
      adapterDim: 64,
      batchSize: 8,
      microBatchSize: 2,
      seqLen: 512,
      lr: 0.002,
      maxGradNorm: 1,
      maxSteps: 24,
    });
    console.info('demo base', losses);
  });

  test.runIf(needs('gguf', 'SmolLM2 on real rows'))('teach SmolLM2-135M', async () => {
    const model = join(caravan.folder, 'smollm2');
    const written = spawnSync('python3', [testData('models/to_huggingface.py'), model, '--dtype', 'bf16'], {
      encoding: 'utf8',
    });
    expect(written.status, written.stderr).toBe(0);
    await mixRealRows(caravan, { name: 'real-smollm2', model, seqLen: 512, perSource: 6 });
    const losses = await trainOnRealRows(caravan, {
      name: 'real-smollm2',
      model,
      mix: 'real-smollm2',
      baseDtype: 'nf4',
      computeDtype: 'bf16',
      loraRank: 16,
      adapterDim: 64,
      batchSize: 8,
      seqLen: 512,
      lr: 0.0005,
      maxSteps: 12,
    });
    console.info('SmolLM2-135M', losses);
  });
});
