/** What was planned against what came, and the plan asked backwards. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrainingPlan } from '../../engine/AddonTypes.ts';
import type { Prediction, Varied } from '../../shared/run/run.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { fitsInto, type Room } from './memory.ts';

/** Bytes of a checkpoint as they lie there; null where it is gone. */
export async function checkpointBytes(dir: string | null): Promise<number | null> {
  if (dir === null) return null;
  try {
    const sizes = await Promise.all(
      (await readdir(dir)).map(async (name) => (await stat(join(dir, name))).size),
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  } catch {
    return null;
  }
}

/** How far memory was from its plan in runs that have both: the smallest and the largest of actual / planned. */
export function trackOf(
  memory: readonly Prediction['memoryBytes'][],
): { runs: number; least: number; most: number } | null {
  const ratios = memory.flatMap(({ planned, actual }) =>
    planned !== null && actual !== null && planned > 0 ? [actual / planned] : [],
  );
  if (ratios.length === 0) return null;
  return { runs: ratios.length, least: Math.min(...ratios), most: Math.max(...ratios) };
}

export interface Limits {
  maxPositions: number;
  longestRow: number;
  batchSize: number;
}

/** What a plan is asked for backwards may be at least and at most, whatever the memory. */
export function boundsOf(
  varied: Varied,
  { maxPositions, longestRow, batchSize }: Limits,
): [least: number, most: number] {
  const accepts = (value: number) => runConfigSchema.shape[varied].safeParse(value).success;
  // A step has no more to lay down at once.
  if (varied === 'microBatchSize') return [1, batchSize];
  if (varied === 'seqLen') return [Math.max(8, longestRow), maxPositions];
  // The limits of run.yaml are powers of two, where it has any.
  let most = 1;
  while (most < 1 << 16 && accepts(most * 2)) most *= 2;
  return [1, most];
}

/**
 * The largest value whose plan fits; memory grows with it.
 * @returns null where not even the least fits
 */
export async function findLargest(
  [least, most]: readonly [number, number],
  room: Room,
  plan: (value: number) => Promise<TrainingPlan>,
): Promise<{ value: number; plan: TrainingPlan } | null> {
  let found: { value: number; plan: TrainingPlan } | null = null;
  const fits = async (value: number) => {
    const planned = await plan(value);
    if (!fitsInto(planned, room)) return false;
    found = { value, plan: planned };
    return true;
  };
  if (!(await fits(least))) return null;
  let low = least;
  let high = least;
  while (high < most) {
    high = Math.min(most, high * 2);
    if (!(await fits(high))) break;
    low = high;
  }
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await fits(middle)) low = middle;
    else high = middle;
  }
  return found;
}
