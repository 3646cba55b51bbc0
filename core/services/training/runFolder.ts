/** A run's folder: run.yaml (what was asked), run.lock.json (what it was resolved to), metrics.jsonl, log.txt, checkpoints/. */
import { mkdir, open, readdir, readFile, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parse, stringify } from 'yaml';
import * as z from 'zod';
import type { TrainOptions } from '../../engine/AddonTypes.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { templates } from '../../shared/dataset/recipe.ts';
import { runConfigSchema, type RunConfig } from '../../shared/run/runConfig.ts';

export const runLockSchema = z.object({
  schema: z.literal('caravan-run-1'),
  id: z.string(),
  name: z.string(),
  createdAt: z.number(),
  versions: z.record(z.string(), z.string()),
  device: z.string(),
  seed: z.number(),
  model: z.object({
    name: z.string(),
    dir: z.string(),
    /** Null until the tensors are hashed, which is before the first step. */
    identity: z.string().nullable(),
    tokenizerHash: z.string(),
  }),
  mix: z.object({
    name: z.string(),
    dir: z.string(),
    contentHash: z.string(),
    template: z.enum(templates),
  }),
  totalSteps: z.number(),
  /** What the plan said before the run began. Runs of before that have none. */
  planned: z.object({ memoryBytes: z.number(), checkpointBytes: z.number() }).exactOptional(),
  /** The engine's options, but for `resumeFrom`. */
  options: z.custom<TrainOptions>((value) => typeof value === 'object' && value !== null),
});
export type RunLock = z.infer<typeof runLockSchema>;

export const runFiles = {
  config: (dir: string) => join(dir, 'run.yaml'),
  lock: (dir: string) => join(dir, 'run.lock.json'),
  metrics: (dir: string) => join(dir, 'metrics.jsonl'),
  log: (dir: string) => join(dir, 'log.txt'),
  checkpoints: (dir: string) => join(dir, 'checkpoints'),
};

export async function writeRunFolder(dir: string, config: RunConfig, lock: RunLock): Promise<void> {
  await mkdir(runFiles.checkpoints(dir), { recursive: true });
  await writeWhole(runFiles.config(dir), stringify(config));
  await writeRunLock(dir, lock);
}

export async function writeRunLock(dir: string, lock: RunLock): Promise<void> {
  await writeWhole(runFiles.lock(dir), `${JSON.stringify(lock, null, 2)}\n`);
}

/** @returns null where the folder is no run's */
export async function readRunFolder(dir: string): Promise<{ config: RunConfig; lock: RunLock } | null> {
  let lockText: string;
  let configText: string;
  try {
    lockText = await readFile(runFiles.lock(dir), 'utf8');
    configText = await readFile(runFiles.config(dir), 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
  try {
    return {
      config: runConfigSchema.parse(parse(configText)),
      lock: runLockSchema.parse(JSON.parse(lockText)),
    };
  } catch (error) {
    throw new CaravanError(
      'bad_file',
      `the run's run.yaml or run.lock.json is damaged: ${(error as Error).message}`,
      {
        place: { file: dir },
        mend: 'Bring the files back, or remove the folder.',
      },
    );
  }
}

/** Newest first, by their names; whether they verify is the engine's to say. */
export async function checkpointFolders(dir: string): Promise<{ step: number; path: string }[]> {
  const names = await readdir(runFiles.checkpoints(dir)).catch(() => []);
  const found: { step: number; path: string }[] = [];
  for (const name of names) {
    const step = /^step-(\d+)$/.exec(name)?.[1];
    const path = join(runFiles.checkpoints(dir), name);
    if (step !== undefined && (await stat(join(path, 'manifest.json')).catch(() => null)))
      found.push({ step: Number(step), path });
  }
  return found.sort((a, b) => b.step - a.step);
}

/** A crash leaves the old file or the new one, never half of one. */
async function writeWhole(file: string, text: string): Promise<void> {
  const partial = `${file}.partial`;
  const handle = await open(partial, 'w');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(partial, file);
  // The rename itself must reach the disk; Windows cannot open a folder for that, and needs not.
  const folder = await open(dirname(file), 'r').catch(() => null);
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}
