import { statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import type { Device } from '../../shared/run/device.ts';
import { lowerNeed } from '../../shared/run/lowerNeed.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { DeviceInfo, TrainingPlan } from '../../engine/AddonTypes.ts';

/** Bytes that a run may take where it computes; on a GPU also beside it, in the machine's own memory. */
export interface Room {
  deviceBytes: number;
  hostBytes: number;
}

export interface SystemMemory {
  availableBytes: number;
  totalBytes: number;
}

/** What a process of this user may take: the machine's memory, or the container's where that is less. */
export function systemMemory(): SystemMemory {
  const limit = process.constrainedMemory();
  return {
    availableBytes: process.availableMemory(),
    totalBytes: limit > 0 ? Math.min(limit, totalmem()) : totalmem(),
  };
}

/** What is free now, and what there is in all. A GPU whose driver does not tell passes for empty. */
export async function roomOn(
  device: Device,
  system: SystemMemory,
  list: () => Promise<DeviceInfo[]>,
): Promise<{ available: Room; total: Room }> {
  if (device === 'cpu')
    return {
      available: { deviceBytes: system.availableBytes, hostBytes: system.availableBytes },
      total: { deviceBytes: system.totalBytes, hostBytes: system.totalBytes },
    };
  const gpu = (await list()).find((found) => found.device === device);
  const total = gpu?.totalMemoryBytes ?? 0;
  return {
    available: { deviceBytes: gpu?.freeMemoryBytes ?? total, hostBytes: system.availableBytes },
    total: { deviceBytes: total, hostBytes: system.totalBytes },
  };
}

export function fitsInto(plan: TrainingPlan, room: Room): boolean {
  return plan.totalMemoryBytes <= room.deviceBytes && plan.hostMemoryBytes <= room.hostBytes;
}

export async function freeDisk(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

/**
 * @param findFitting the largest settings that would fit, in words
 * @throws `does_not_fit`, with them
 */
export async function checkFits(
  plan: TrainingPlan,
  config: RunConfig,
  room: Room,
  what: 'available' | 'in all',
  findFitting: () => Promise<string>,
): Promise<void> {
  if (fitsInto(plan, room)) return;
  if (plan.totalMemoryBytes <= room.deviceBytes)
    throw new CaravanError(
      'does_not_fit',
      `beside the GPU the run needs ${formatBytes(plan.hostMemoryBytes)} of the machine's memory (optimizer state and the copy for checkpoints) and ${formatBytes(room.hostBytes)} are ${what}`,
      { mend: `Close other programs. ${await findFitting()}` },
    );
  const largest = [...plan.memory].sort((a, b) => b.bytes - a.bytes).slice(0, 3);
  throw new CaravanError(
    'does_not_fit',
    `the run needs ${formatBytes(plan.totalMemoryBytes)} of ${config.device === 'cpu' ? 'memory' : "the GPU's memory"} and ${formatBytes(room.deviceBytes)} are ${what}; most of it goes to ${largest
      .map(({ item, bytes: size }) => `${item} (${formatBytes(size)})`)
      .join(', ')}`,
    {
      mend: `${await findFitting()} ${lowerNeed(config, what === 'available' ? ['close other programs'] : [])}`,
    },
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
