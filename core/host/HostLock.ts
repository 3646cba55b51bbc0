/**
 * The lock that makes a host the only one of its home.
 *
 * Every starter first writes a claim, <home>/host/<id>.lock, and only then looks at the others' claims. Of two that start
 * at once at least one therefore sees the other; the smaller id goes on, the larger yields, and a host that runs already
 * beats both. A claim's name is never used twice, so a dead host's claim can be removed by anybody at any time: no moment
 * exists in which removing the dead one could remove a live one that just took its place.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { CaravanError } from '../shared/contract/errors.ts';
import { machineIdentity, processStart } from '../process/processIdentity.ts';

const lockRecordSchema = z.object({
  id: z.string(),
  pid: z.number().int(),
  /** See core/process/processIdentity.ts: with the pid, it names one process. */
  processStart: z.string(),
  machine: z.string(),
  /** `claiming` until it has looked at the others' claims, then `starting` until it listens. */
  state: z.enum(['claiming', 'starting', 'running', 'closing']),
  /** Path of the local socket or name of the pipe; null until it listens. */
  address: z.string().nullable(),
  version: z.string(),
  startedAt: z.number(),
  /** Processes that work for the host: should it die, they save what they have and end, a little later than it did. */
  children: z.array(z.object({ pid: z.number().int(), processStart: z.string() })).default([]),
});
export type LockRecord = z.infer<typeof lockRecordSchema>;

/** A claim as it was found. `foreign`: made where this process cannot ask whether its maker lives. */
export interface FoundLock {
  record: LockRecord;
  file: string;
  life: 'alive' | 'dead' | 'foreign';
}

/** A host touches its claim this often, for those that cannot ask about its process. */
const heartbeatMs = 10_000;
const foreignDeadAfterMs = 4 * heartbeatMs;

export function lockFolder(home: string): string {
  return join(home, 'host');
}

/** All claims on a home, running hosts first. Files that are no claims are passed over. */
export function readLocks(home: string, now = Date.now()): FoundLock[] {
  const folder = lockFolder(home);
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const found: FoundLock[] = [];
  for (const name of names) {
    if (!name.endsWith('.lock')) continue;
    const file = join(folder, name);
    try {
      const record = lockRecordSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
      found.push({ record, file, life: lifeOf(record, statSync(file).mtimeMs, now) });
    } catch (error) {
      // Gone since the folder was read, or (written whole and renamed as claims are) the remains of a broken disk.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') removeIfThere(file);
    }
  }
  const rank = { running: 0, closing: 1, starting: 2, claiming: 3 };
  return found.sort(
    (a, b) => rank[a.record.state] - rank[b.record.state] || (a.record.id < b.record.id ? -1 : 1),
  );
}

function lifeOf(record: LockRecord, touchedAt: number, now: number): FoundLock['life'] {
  if (record.machine !== machineIdentity()) return now - touchedAt > foreignDeadAfterMs ? 'dead' : 'foreign';
  const start = processStart(record.pid);
  if (start === null) return 'dead';
  if (start === 'unknown' || record.processStart === 'unknown') return 'alive';
  return start === record.processStart ? 'alive' : 'dead';
}

/** A claim that won. */
export interface HostLock {
  readonly record: LockRecord;
  /** Claims of hosts that had ended without taking them back. */
  readonly takenOver: readonly LockRecord[];
  /** Tells clients where to go, or that the host is on its way out. */
  update(change: Partial<Pick<LockRecord, 'state' | 'address' | 'children'>>): void;
  release(): void;
}

/**
 * Claims the home for this process.
 * @returns null where another host lives or is about to
 * @throws `wrong_state` where a host that this process cannot see (another machine, another container) holds the home
 */
export async function claimHome(
  home: string,
  version: string,
  options: { startedAt?: number; id?: string; timeoutMs?: number } = {},
): Promise<HostLock | null> {
  const id = options.id ?? randomBytes(8).toString('hex');
  const folder = lockFolder(home);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const file = join(folder, `${id}.lock`);
  let record: LockRecord = {
    id,
    pid: process.pid,
    processStart: processStart(process.pid) ?? 'unknown',
    machine: machineIdentity(),
    state: 'claiming',
    address: null,
    version,
    startedAt: options.startedAt ?? Date.now(),
    children: [],
  };
  writeClaim(file, record);
  const takenOver: LockRecord[] = [];
  const deadline = Date.now() + (options.timeoutMs ?? 30_000);
  try {
    for (;;) {
      const others = readLocks(home).filter((lock) => lock.record.id !== id);
      for (const dead of others.filter((lock) => lock.life === 'dead')) {
        if (removeIfThere(dead.file)) takenOver.push(dead.record);
      }
      const rivals = others.filter((lock) => lock.life !== 'dead');
      const foreign = rivals.find((lock) => lock.life === 'foreign');
      if (foreign) throw heldElsewhere(home, foreign.record);
      if (rivals.length === 0) break;
      if (rivals.some(({ record: rival }) => rival.state !== 'claiming' || rival.id < id)) {
        removeIfThere(file);
        return null;
      }
      // Only larger ids are left: each of them yields as soon as it looks, or has just won and says so.
      if (Date.now() > deadline)
        throw new CaravanError(
          'wrong_state',
          `process ${rivals[0]!.record.pid} has been starting a host of this home for long`,
          {
            place: { file: rivals[0]!.file },
            mend: 'End that process, then try again.',
          },
        );
      await sleep(10);
    }
  } catch (error) {
    removeIfThere(file);
    throw error;
  }
  record = { ...record, state: 'starting' };
  writeClaim(file, record);
  const heartbeat = setInterval(() => {
    const now = new Date();
    try {
      utimesSync(file, now, now);
    } catch {
      // A home that is gone: the host notices that where it writes.
    }
  }, heartbeatMs);
  heartbeat.unref();
  return {
    get record() {
      return record;
    },
    takenOver,
    update(change) {
      record = { ...record, ...change };
      writeClaim(file, record);
    },
    release() {
      clearInterval(heartbeat);
      removeIfThere(file);
    },
  };
}

export function heldElsewhere(home: string, record: LockRecord): CaravanError {
  return new CaravanError(
    'wrong_state',
    `a host on another machine or in another container (${record.machine.split(' ')[0]}, process ${record.pid}) holds this home`,
    {
      place: { file: home },
      mend: `Stop it there, or wait ${foreignDeadAfterMs / 1000} s if that machine is gone.`,
    },
  );
}

/** Whole or not at all: a reader never sees half a claim. */
function writeClaim(file: string, record: LockRecord): void {
  const temporary = `${file}.partial`;
  const descriptor = openSync(temporary, 'w', 0o600);
  try {
    writeSync(descriptor, JSON.stringify(record));
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, file);
}

function removeIfThere(file: string): boolean {
  try {
    unlinkSync(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
