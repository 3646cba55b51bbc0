import { expect, test } from 'vitest';
import type { TrainingPlan } from '../../engine/AddonTypes.ts';
import { runConfigSchema, type RunConfigInput } from '../../shared/run/runConfig.ts';
import { checkFits, roomOn } from './memory.ts';
import { whatFits } from './whatFits.ts';

const limits = { maxPositions: 4096, longestRow: 64, batchSize: 128 };
const of = (more: Partial<RunConfigInput> = {}) =>
  runConfigSchema.parse({ model: 'm', mix: 'x', device: 'cuda', microBatchSize: 8, seqLen: 1000, ...more });

/** 100 for the base; the rest grows as a run's memory does. */
function planOf(config: ReturnType<typeof of>) {
  return (change: Partial<typeof config>) => {
    const { microBatchSize, seqLen, adapterDim, recompute, optimizer, trainDtype } = { ...config, ...change };
    const state = adapterDim * { adamw: 8, adamw8bit: 2, paged_adamw: 0, paged_adamw8bit: 0 }[optimizer];
    const activations = (microBatchSize * seqLen) / (recompute ? 10 : 1);
    return Promise.resolve({
      totalMemoryBytes: 100 + state + adapterDim * (trainDtype === 'bf16' ? 4 : 8) + activations,
      hostMemoryBytes: adapterDim * (optimizer === 'paged_adamw' ? 8 : 2),
    } as TrainingPlan);
  };
}
const suggest = (room: number, more: Partial<RunConfigInput> = {}, hostBytes = 1e9) =>
  whatFits(of(more), { deviceBytes: room, hostBytes }, limits, planOf(of(more)));

test('names the largest of each setting that fits, all else as it is', async () => {
  // 100 + 512 * 16 + 8000 = 16292 are needed.
  expect(await suggest(13_000)).toBe(
    'Each of these fits, all else as it is: microBatchSize: 4; seqLen: 588; adapterDim: 306; recompute: true; optimizer: paged_adamw.',
  );
  expect(await suggest(16_000)).toContain('optimizer: adamw8bit; optimizer: paged_adamw; trainDtype: bf16.');
});

test('where no setting is enough by itself, all that save memory without changing what is trained', async () => {
  expect(await suggest(3_000, { seqLen: 4096 })).toBe(
    'No single setting is enough; together these fit: microBatchSize: 1, recompute: true, optimizer: paged_adamw, trainDtype: bf16.',
  );
  expect(await suggest(2_200, { seqLen: 4096 })).toMatch(/together these fit: .*, seqLen: 52/);
  expect(await suggest(50)).toContain('use a smaller model');
});

test('paging suggests what the machine beside the GPU has room for, and none on the CPU', async () => {
  expect(await suggest(13_000, {}, 2_000)).not.toContain('paged');
  expect(await suggest(13_000, { device: 'cpu' })).not.toContain('paged');
});

test('room is the named device’s own', async () => {
  const gpus = [1, 2].map((n) => ({
    device: n === 1 ? ('cuda' as const) : ('cuda:1' as const),
    kind: 'cuda' as const,
    name: 'a GPU',
    units: 132,
    totalMemoryBytes: n * 100,
    freeMemoryBytes: n === 1 ? 60 : null,
  }));
  const system = { availableBytes: 7, totalBytes: 9 };
  const list = () => Promise.resolve(gpus);
  expect(await roomOn('cuda', system, list)).toEqual({
    available: { deviceBytes: 60, hostBytes: 7 },
    total: { deviceBytes: 100, hostBytes: 9 },
  });
  expect((await roomOn('cuda:1', system, list)).available.deviceBytes).toBe(200);
  expect((await roomOn('cpu', system, list)).total).toEqual({ deviceBytes: 9, hostBytes: 9 });
});

test('a run that lacks memory beside the GPU alone says so', async () => {
  const plan = { totalMemoryBytes: 50, hostMemoryBytes: 20, memory: [] } as unknown as TrainingPlan;
  const check = (hostBytes: number) =>
    checkFits(plan, of(), { deviceBytes: 60, hostBytes }, 'available', () => Promise.resolve('so'));
  await expect(check(10)).rejects.toMatchObject({
    code: 'does_not_fit',
    message: expect.stringContaining("of the machine's memory") as string,
  });
  await check(20);
});
