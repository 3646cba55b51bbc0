import { expect, test } from 'vitest';
import type { TrainingPlan } from '../../engine/AddonTypes.ts';
import { boundsOf, findLargest, trackOf } from './predictions.ts';

const planned = (value: number) =>
  Promise.resolve({ totalMemoryBytes: 100 + 7 * value, hostMemoryBytes: 0 } as TrainingPlan);
const room = (deviceBytes: number) => ({ deviceBytes, hostBytes: 0 });

test.each([
  [107, 1],
  [113, 1],
  [114, 2],
  [100 + 7 * 37, 37],
  [100 + 7 * 64 + 6, 64],
])('%i bytes hold %i', async (memory, value) => {
  expect(await findLargest([1, 1000], room(memory), planned)).toMatchObject({ value });
});

test('says that nothing fits, and stops at what there can be', async () => {
  expect(await findLargest([1, 1000], room(106), planned)).toBeNull();
  expect(await findLargest([1, 50], room(1e9), planned)).toMatchObject({ value: 50 });
});

test('a row of the mix must fit into the length, the length into the model, and a micro-batch into the step', () => {
  const run = { maxPositions: 2048, longestRow: 300, batchSize: 96 };
  expect(boundsOf('seqLen', run)).toEqual([300, 2048]);
  expect(boundsOf('adapterDim', run).at(-1)).toBe(16384);
  expect(boundsOf('microBatchSize', run)).toEqual([1, 96]);
});

test('the track record spans the runs that have both numbers', () => {
  expect(
    trackOf([
      { planned: 100, actual: 98 },
      { planned: 100, actual: 103 },
      { planned: null, actual: 5 },
      { planned: 100, actual: null },
    ]),
  ).toEqual({ runs: 2, least: 0.98, most: 1.03 });
  expect(trackOf([{ planned: null, actual: null }])).toBeNull();
});
