import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { claimHome, lockFolder, readLocks, type LockRecord } from './HostLock.ts';
import { machineIdentity, processStart } from '../process/processIdentity.ts';

function makeHome(): string {
  return mkdtempSync(join(tmpdir(), 'lock-'));
}

function plant(home: string, change: Partial<LockRecord>): string {
  const record: LockRecord = {
    id: 'planted',
    pid: process.pid,
    processStart: processStart(process.pid)!,
    machine: machineIdentity(),
    state: 'running',
    address: null,
    version: '1',
    startedAt: 0,
    children: [],
    ...change,
  };
  mkdirSync(lockFolder(home), { recursive: true });
  const file = join(lockFolder(home), `${record.id}.lock`);
  writeFileSync(file, JSON.stringify(record));
  return file;
}

/** A pid that nobody has: that of a process which has just ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => child.on('exit', resolve));
  return child.pid!;
}

const files = (home: string) => readdirSync(lockFolder(home));

test('the first claim wins, says where it listens, and is gone when released', async () => {
  const home = makeHome();
  const lock = (await claimHome(home, '1.2.3'))!;
  expect(lock.record).toMatchObject({ pid: process.pid, state: 'starting', address: null, version: '1.2.3' });
  lock.update({ state: 'running', address: '/some/socket' });
  const [found] = readLocks(home);
  expect(found).toMatchObject({ life: 'alive', record: { state: 'running', address: '/some/socket' } });
  if (process.platform !== 'win32') expect(statSync(found!.file).mode & 0o777).toBe(0o600);
  expect(await claimHome(home, '1'), 'a second one yields').toBeNull();
  lock.release();
  expect(files(home)).toEqual([]);
});

test('takes over from a process that is gone, and from one whose pid has another process now', async () => {
  const home = makeHome();
  plant(home, { id: 'gone', pid: await deadPid() });
  plant(home, { id: 'reused', processStart: '1' });
  const lock = (await claimHome(home, '1'))!;
  expect(lock.takenOver.map(({ id }) => id).sort()).toEqual(['gone', 'reused']);
  expect(files(home)).toEqual([`${lock.record.id}.lock`]);
  lock.release();
});

test('a zombie is dead', async () => {
  if (process.platform !== 'linux') return;
  // The shell starts a child, becomes another program and never waits for it.
  const parent = spawn('sh', ['-c', 'true & echo $!; exec sleep 5'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const pid = Number(
    await new Promise<string>((resolve) => parent.stdout.once('data', (d) => resolve(String(d)))),
  );
  await expect.poll(() => processStart(pid)).toBeNull();
  parent.kill('SIGKILL');
});

test('yields to a host that runs or starts, whatever its id; of two claims the smaller id wins', async () => {
  const home = makeHome();
  for (const state of ['running', 'starting', 'closing'] as const) {
    plant(home, { id: 'zzz', state });
    expect(await claimHome(home, '1', { id: 'aaa' })).toBeNull();
  }
  plant(home, { id: 'zzz', state: 'claiming' });
  expect(await claimHome(home, '1', { id: 'zzzz' }), 'larger than the rival').toBeNull();
  await expect(
    claimHome(home, '1', { id: 'aaa', timeoutMs: 50 }),
    'waits for the rival',
  ).rejects.toMatchObject({
    code: 'wrong_state',
  });
  expect(files(home), 'nothing is left of those that gave up').toEqual(['zzz.lock']);
});

test('of many claims at once exactly one wins', async () => {
  for (let round = 0; round < 20; round++) {
    const home = makeHome();
    const results = await Promise.all(Array.from({ length: 8 }, () => claimHome(home, '1')));
    expect(results.filter((lock) => lock !== null)).toHaveLength(1);
    expect(files(home)).toHaveLength(1);
    for (const lock of results) lock?.release();
  }
});

test('a claim of another machine counts while it is touched, and no longer', async () => {
  const home = makeHome();
  const file = plant(home, { id: 'far', machine: 'elsewhere boot pid:[1]' });
  expect(readLocks(home)[0]!.life).toBe('foreign');
  await expect(claimHome(home, '1')).rejects.toMatchObject({
    code: 'wrong_state',
    message: expect.stringContaining('elsewhere'),
  });
  const old = new Date(Date.now() - 60_000);
  utimesSync(file, old, old);
  const lock = (await claimHome(home, '1'))!;
  expect(lock.takenOver.map(({ id }) => id)).toEqual(['far']);
  lock.release();
});

test('what is no claim is removed and keeps nobody out', async () => {
  const home = makeHome();
  mkdirSync(lockFolder(home));
  writeFileSync(join(lockFolder(home), 'torn.lock'), '{"id":');
  writeFileSync(join(lockFolder(home), 'serve-token'), 'kept');
  const lock = (await claimHome(home, '1'))!;
  expect(files(home).sort()).toEqual([`${lock.record.id}.lock`, 'serve-token'].sort());
  lock.release();
});
