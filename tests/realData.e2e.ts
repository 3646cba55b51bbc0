/** A small part of realData.long.ts for every day: the demo base learns from real rows. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { importRealRows, mixRealRows, trainOnRealRows } from './support/realRows.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

const demoBase = fileURLToPath(new URL('../demo/base', import.meta.url));
const runnable = needs('addon', 'training on real rows') && needs('data', 'training on real rows');

describe.runIf(runnable)('real rows', () => {
  let caravan: CaravanHome;

  beforeAll(() => {
    caravan = makeCaravanHome();
  });
  afterAll(() => caravan.endHost());

  test('a few steps on them lower held-out loss on every source', async () => {
    await importRealRows(caravan);
    await mixRealRows(caravan, { name: 'real', model: demoBase, seqLen: 256, perSource: 4 });
    await trainOnRealRows(caravan, {
      name: 'real',
      model: demoBase,
      mix: 'real',
      computeDtype: 'f32',
      loraRank: 8,
      adapterDim: 32,
      batchSize: 4,
      microBatchSize: 2,
      seqLen: 256,
      lr: 0.002,
      maxGradNorm: 1,
      maxSteps: 6,
    });
  });
});
