/**
 * Whose a run's folder is: the training engine that writes there says so in engine.json. An engine outlives a host that is
 * killed, long enough to write a checkpoint, and two of them in one folder would overwrite each other's.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { machineIdentity, processStart } from '../process/processIdentity.ts';

const claimSchema = z.object({ pid: z.number().int(), processStart: z.string(), machine: z.string() });

const watchMs = 50;

const claimFile = (runDir: string) => join(runDir, 'engine.json');

export function claimRun(runDir: string, pid: number): void {
  const file = claimFile(runDir);
  const claim = { pid, processStart: processStart(pid) ?? 'gone', machine: machineIdentity() };
  writeFileSync(`${file}.partial`, JSON.stringify(claim));
  renameSync(`${file}.partial`, file);
}

export function releaseRun(runDir: string): void {
  rmSync(claimFile(runDir), { force: true });
}

/** The engine that trains into this folder; null where none lives. One of another machine or boot is not seen. */
export function engineOf(runDir: string): number | null {
  let text: string;
  try {
    text = readFileSync(claimFile(runDir), 'utf8');
  } catch {
    return null;
  }
  const claim = claimSchema.safeParse(parseJson(text));
  if (!claim.success || claim.data.machine !== machineIdentity()) return null;
  return processStart(claim.data.pid) === claim.data.processStart ? claim.data.pid : null;
}

/**
 * Waits until no engine trains into the folder, and kills one that does not end.
 * @param onWaiting told once, with the engine's pid, where there is one to wait for
 * @returns whether one had to be killed
 */
export async function outliveEngine(
  runDir: string,
  graceMs: number,
  onWaiting: (pid: number) => void,
): Promise<boolean> {
  const first = engineOf(runDir);
  if (first === null) return false;
  onWaiting(first);
  const deadline = performance.now() + graceMs;
  for (let pid: number | null = first; pid !== null; pid = engineOf(runDir)) {
    if (performance.now() > deadline) {
      process.kill(pid, 'SIGKILL');
      while (engineOf(runDir) !== null) await sleep(watchMs);
      return true;
    }
    await sleep(watchMs);
  }
  return false;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
