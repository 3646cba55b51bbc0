import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createClient, type Client } from '../shared/contract/client.ts';
import { contractVersion } from '../shared/contract/contract.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { connectLocalSocket } from './carriers/localSocket.ts';
import { openHome } from './home.ts';
import { heldElsewhere, readLocks, type FoundLock } from './HostLock.ts';
import { HostLog } from './HostLog.ts';
import type { StartReport } from './runHost.ts';
import { version } from './version.ts';

export interface ConnectOptions {
  /** What people should know: that a dead host's lock was taken over, say. */
  onRemark?: (text: string) => void;
  home?: string;
  /** The host's program. */
  entry?: string;
  /** Makes a host where none lives; by default a process of its own, which outlives this one. */
  start?: StartHost;
}

/** Resolves when a host stands, or another won the home; rejects with what kept it from starting. */
export type StartHost = (home: string, remark: (text: string) => void) => Promise<void>;

/** A host that starts or ends takes this long at most; one that ends may have a large checkpoint to write. */
const startWithinMs = 60_000;
const closeWithinMs = 5 * 60_000;
/** A live host answers within this, or something is wrong with it. */
const answerWithinMs = 15_000;

/**
 * A client of the home's live host; starts one, which outlives this process, where none lives.
 * @throws `host_unreachable`, `wrong_state`, or what kept the host from starting
 */
export async function connectOrStart(options: ConnectOptions = {}): Promise<Client> {
  const home = openHome(options.home);
  const entry = options.entry ?? fileURLToPath(new URL('main.ts', import.meta.url));
  const remark = options.onRemark ?? (() => undefined);
  const begun = Date.now();
  let saidClosing = false;
  for (;;) {
    const locks = readLocks(home).filter((lock) => lock.life !== 'dead');
    const elapsed = Date.now() - begun;
    const running = locks.find((lock) => lock.record.state === 'running');
    if (running) {
      const client = await tryConnect(running, elapsed, home);
      const agreed = client && (await agree(client, running, remark));
      if (agreed) return client;
    } else if (locks.length === 0) {
      await (options.start ? options.start(home, remark) : start(home, entry, remark));
      continue;
    } else {
      const lock = locks[0]!;
      if (lock.life === 'foreign') throw heldElsewhere(home, lock.record);
      const isClosing = lock.record.state === 'closing';
      if (isClosing && !saidClosing && elapsed > 1000) {
        saidClosing = true;
        remark(`waiting for the last host (process ${lock.record.pid}) to save its work`);
      }
      if (elapsed > (isClosing ? closeWithinMs : startWithinMs))
        throw unreachable(lock, home, isClosing ? 'has been closing for long' : 'does not get started');
    }
    await sleep(25);
  }
}

async function tryConnect(lock: FoundLock, elapsed: number, home: string): Promise<Client | null> {
  if (lock.record.address === null) return null;
  try {
    return createClient(await connectLocalSocket(lock.record.address));
  } catch (error) {
    // It may be closing this very moment; its lock will say so.
    if (lock.life === 'foreign') throw heldElsewhere(home, lock.record);
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM')
      throw new CaravanError('permission_denied', `the host of this home is another user's: ${message}`, {
        place: { file: home },
        mend: 'Set CARAVAN_HOME to a folder of your own.',
      });
    if (elapsed > answerWithinMs) throw unreachable(lock, home, `cannot be reached (${message})`);
    return null;
  }
}

/**
 * Whether client and host understand each other. A host of another version is replaced where it has nothing to do.
 * @returns false: look again
 */
async function agree(client: Client, lock: FoundLock, remark: (text: string) => void): Promise<boolean> {
  const late = AbortSignal.timeout(answerWithinMs);
  const timedOut = new Promise<never>((_, reject) =>
    late.addEventListener('abort', () =>
      reject(new CaravanError('host_unreachable', `the host (process ${lock.record.pid}) does not answer`)),
    ),
  );
  let host: { contractVersion: number; version: string };
  try {
    host = await Promise.race([client.call('hello', {}), timedOut]);
  } catch (error) {
    const known = CaravanError.from(error);
    // It answered, in words of another time.
    if (known.code === 'internal') host = { contractVersion: NaN, version: lock.record.version };
    else {
      client.close();
      if (known.message.includes('does not answer')) throw known;
      return false;
    }
  }
  if (host.contractVersion === contractVersion && host.version === version) return true;
  try {
    await Promise.race([client.call('shutdownHost', { onlyIfIdle: true }), timedOut]);
    remark(`replacing the idle host of version ${host.version} by ${version}`);
    client.close();
    await sleep(100);
    return false;
  } catch (error) {
    if (host.contractVersion === contractVersion) {
      remark(
        `the host is of version ${host.version}, this command of ${version}; the host is at work and goes on`,
      );
      return true;
    }
    client.close();
    throw new CaravanError(
      'wrong_state',
      `a host of another version (${host.version}, this is ${version}) is at work in this home: ${CaravanError.from(error).message}`,
      {
        mend: `Wait until its jobs and runs have ended, or end it (they are saved first): kill ${lock.record.pid}`,
      },
    );
  }
}

/** Starts a host that belongs to no terminal, and waits until it stands or has said why not. */
async function start(home: string, entry: string, remark: (text: string) => void): Promise<void> {
  const log = new HostLog(join(home, 'host.log'));
  log.rotate();
  const output = openSync(log.file, 'a', 0o600);
  const child = spawn(process.execPath, [entry], {
    cwd: home,
    detached: true,
    windowsHide: true,
    stdio: ['ignore', output, output, 'ipc'],
    env: { ...process.env, CARAVAN_HOME: home },
  });
  closeSync(output);
  const report = await new Promise<StartReport | { type: 'gone'; how: string }>((resolve) => {
    child.on('message', (message: StartReport) => {
      if (message.type === 'waiting') remark(message.remark);
      else resolve(message);
    });
    child.once('error', (error) => resolve({ type: 'gone', how: error.message }));
    child.once('exit', (code, signal) => resolve({ type: 'gone', how: signal ?? `exit code ${code}` }));
    setTimeout(() => resolve({ type: 'gone', how: 'no word from it' }), startWithinMs).unref();
  });
  if (child.connected) child.disconnect();
  child.unref();
  if (report.type === 'ready') for (const text of report.remarks) remark(text);
  if (report.type === 'failed') throw CaravanError.fromData(report.error);
  if (report.type === 'gone')
    throw new CaravanError(
      'host_unreachable',
      `the host did not start (${report.how}): ${lastWords(log.file)}`,
      {
        place: { file: log.file },
        mend: 'That file has its last words.',
      },
    );
}

function lastWords(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-3).join(' | ');
  } catch {
    return 'it left no log';
  }
}

function unreachable(lock: FoundLock, home: string, what: string): CaravanError {
  return new CaravanError('host_unreachable', `the host of this home (process ${lock.record.pid}) ${what}`, {
    place: { file: join(home, 'host.log') },
    mend: `See that file; to end the host: kill ${lock.record.pid}`,
  });
}
