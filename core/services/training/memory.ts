import { statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import { lowerNeed } from '../../shared/run/lowerNeed.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { TrainingPlan } from '../../engine/AddonTypes.ts';

/** What a process of this user may take: the machine's memory, or the container's where that is less. */
export function systemMemory(): { availableBytes: number; totalBytes: number } {
  const limit = process.constrainedMemory();
  return {
    availableBytes: process.availableMemory(),
    totalBytes: limit > 0 ? Math.min(limit, totalmem()) : totalmem(),
  };
}

export async function freeDisk(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

/** @throws `does_not_fit`, with what would lower the need of this very configuration */
export function checkFits(
  plan: TrainingPlan,
  config: RunConfig,
  bytes: number,
  what: 'available' | 'in all',
): void {
  if (plan.totalMemoryBytes <= bytes) return;
  const largest = [...plan.memory].sort((a, b) => b.bytes - a.bytes).slice(0, 3);
  throw new CaravanError(
    'does_not_fit',
    `the run needs ${formatBytes(plan.totalMemoryBytes)} of memory and ${formatBytes(bytes)} are ${what}; most of it goes to ${largest
      .map(({ item, bytes: size }) => `${item} (${formatBytes(size)})`)
      .join(', ')}`,
    { mend: lowerNeed(config, what === 'available' ? ['close other programs'] : []) },
  );
}

/** @throws `disk_full` where not one checkpoint has room. @returns a warning where the kept ones would not. */
export function checkDisk(
  plan: TrainingPlan,
  config: RunConfig,
  freeBytes: number,
  dir: string,
): string | null {
  if (freeBytes < plan.checkpointBytes)
    throw new CaravanError(
      'disk_full',
      `one checkpoint takes ${formatBytes(plan.checkpointBytes)} and the disk has ${formatBytes(freeBytes)} left`,
      { place: { file: dir }, mend: 'Free some space, or set CARAVAN_HOME to a folder on a larger disk.' },
    );
  // One more than is kept: the new one is whole before the oldest goes; and the best is kept besides.
  const needed = plan.checkpointBytes * (config.keepCheckpoints + 2);
  return freeBytes < needed
    ? `the disk has ${formatBytes(freeBytes)} left; ${config.keepCheckpoints} checkpoints and one being written take up to ${formatBytes(needed)}`
    : null;
}
