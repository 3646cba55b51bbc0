import { unlinkSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { engineOf } from '../engine/client.ts';
import { CaravanError, type ContractErrorData } from '../shared/contract/errors.ts';
import type { EmitEvent } from '../shared/contract/service.ts';
import type { Services } from './composeServices.ts';
import { Host } from './Host.ts';
import { claimHome, type HostLock, type LockRecord } from './HostLock.ts';
import { HostLog } from './HostLog.ts';
import { machineIdentity, processStart } from '../process/processIdentity.ts';
import { version } from './version.ts';

/** What a host tells whoever started it. */
export type StartReport =
  /** It takes longer than usual; more follows. */
  | { type: 'waiting'; remark: string }
  | { type: 'ready'; remarks: string[] }
  /** Another host won the home. */
  | { type: 'yielded' }
  | { type: 'failed'; error: ContractErrorData };

export interface RunHostOptions {
  home: string;
  idleMs: number | null;
  report: (message: StartReport) => void;
  openServices: (home: string, endedUncleanly: boolean, emit: EmitEvent) => Promise<Services>;
  /** Given the host once it is open, so that its own process can attach to it without a socket. */
  onHost?: (host: Host) => void;
  /** By default this process's version: tests put another in its place. */
  version?: string;
}

/** A checkpoint of a large model takes its time; after this long something hangs. */
const closeWithinMs = 5 * 60_000;
/** Less than a starter waits for a host. */
const orphansWithinMs = 45_000;
const orphanWatchMs = 50;
/** What ends sooner is not worth a word. */
const sayWaitingAfterMs = 1000;

/**
 * The life of this process's host: claims the home, opens the services, listens, and ends by signal, call, idleness or its
 * own fault, with everything saved. @returns the exit code
 */
export async function runHost(options: RunHostOptions): Promise<number> {
  const { home, report } = options;
  const log = new HostLog(join(home, 'host.log'));
  let lock: HostLock | null = null;
  try {
    lock = await claimHome(home, options.version ?? version);
    if (lock === null) {
      report({ type: 'yielded' });
      return 0;
    }
    return await live(options, lock, log);
  } catch (error) {
    const known = CaravanError.from(error);
    log.line(
      `did not start: ${known.code === 'internal' && error instanceof Error ? error.stack : known.message}`,
    );
    // First given back: whoever hears of the failure may try again at once.
    lock?.release();
    report({ type: 'failed', error: known.toData() });
    return 1;
  } finally {
    lock?.release();
  }
}

async function live(options: RunHostOptions, lock: HostLock, log: HostLog): Promise<number> {
  const { home } = options;
  const { promise: ended, resolve: end } = Promise.withResolvers<{ reason: string; exitCode: number }>();
  listenToEndings(log, end);
  const remarks = lock.takenOver.map(
    ({ pid }) =>
      `The last host of this home (process ${pid}) ended without closing; its lock was taken over, and what it was at is marked interrupted.`,
  );
  for (const dead of lock.takenOver)
    if (dead.address !== null && process.platform !== 'win32') removeSocket(dead.address);
  await outliveOrphans(home, lock.takenOver, (remark) => {
    log.line(remark);
    options.report({ type: 'waiting', remark });
  });
  const host = await Host.open({
    home,
    version: lock.record.version,
    idleMs: options.idleMs,
    log: (line) => log.line(line),
    services: (emit) => options.openServices(home, lock.takenOver.length > 0, emit),
    onEnd: (reason) => end({ reason, exitCode: 0 }),
    onProcesses: (pids) =>
      lock.update({ children: pids.map((pid) => ({ pid, processStart: processStart(pid) ?? 'unknown' })) }),
  });
  let ending: { reason: string; exitCode: number };
  try {
    const address = await host.listenLocally(lock.record.id);
    lock.update({ state: 'running', address });
    remarks.push(...host.notes);
    for (const remark of remarks) log.line(remark);
    log.line(`host ${lock.record.version} of ${home} listens at ${address}`);
    options.onHost?.(host);
    options.report({ type: 'ready', remarks });
    ending = await ended;
  } catch (error) {
    await host.close('it could not start');
    throw error;
  }
  log.line(`closing: ${ending.reason}`);
  lock.update({ state: 'closing' });
  const force = setTimeout(() => {
    log.line(`did not close within ${closeWithinMs / 1000} s`);
    process.exit(1);
  }, closeWithinMs);
  try {
    await host.close(ending.reason);
    log.line('closed');
    return ending.exitCode;
  } catch (error) {
    log.line(`while closing: ${error instanceof Error ? error.stack : String(error)}`);
    return 1;
  } finally {
    clearTimeout(force);
  }
}

function listenToEndings(log: HostLog, end: (ending: { reason: string; exitCode: number }) => void): void {
  let asked = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => {
      if (asked) {
        log.line(`${signal} again: ending at once`);
        process.exit(4);
      }
      asked = true;
      end({ reason: signal, exitCode: 0 });
    });
  // The terminal that a host was started from may close; the host stays.
  process.on('SIGHUP', () => undefined);
  process.on('uncaughtException', (error) => {
    // What state it leaves is anybody's guess: save what can be saved and end.
    log.line(`uncaught: ${error instanceof Error ? error.stack : String(error)}`);
    end({ reason: `a bug: ${error instanceof Error ? error.message : String(error)}`, exitCode: 1 });
  });
}

/**
 * A training engine whose host died stops with a checkpoint. Until it has, nobody else may touch its run. It is known from
 * the dead host's claim, and from its own on the run's folder: a host may have died before it named the engine in its claim.
 */
async function outliveOrphans(
  home: string,
  dead: readonly LockRecord[],
  say: (remark: string) => void,
): Promise<void> {
  const here = machineIdentity();
  const orphans = dead.filter(({ machine }) => machine === here).flatMap(({ children }) => children);
  const runDirs = await readdir(join(home, 'runs')).catch(() => []);
  for (const name of runDirs) {
    const pid = engineOf(join(home, 'runs', name));
    const start = pid === null ? null : processStart(pid);
    if (pid !== null && start !== null) orphans.push({ pid, processStart: start });
  }
  const living = () =>
    orphans.filter((orphan) => processStart(orphan.pid) === orphan.processStart).map(({ pid }) => pid);
  const begun = performance.now();
  let said = false;
  while (living().length > 0) {
    const waitedMs = performance.now() - begun;
    const which = `process ${[...new Set(living())].join(', ')}`;
    if (!said && waitedMs > sayWaitingAfterMs) {
      said = true;
      say(`Waiting for what worked for the last host (${which}) to save its run and end.`);
    }
    if (waitedMs > orphansWithinMs) {
      for (const pid of living()) process.kill(pid, 'SIGKILL');
      say(`What worked for the last host (${which}) did not end by itself and was killed.`);
      return;
    }
    await sleep(orphanWatchMs);
  }
}

function removeSocket(address: string): void {
  try {
    unlinkSync(address);
  } catch {
    // Gone with its folder, or never made.
  }
}
