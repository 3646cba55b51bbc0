/** How hosts start, are found, meet and end: whole processes, with services from a script. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectOrStart } from '../core/host/connect.ts';
import { readLocks } from '../core/host/HostLock.ts';
import { processStart } from '../core/process/processIdentity.ts';
import type { Client } from '../core/shared/contract/client.ts';

const entry = fileURLToPath(new URL('support/fakeHostMain.ts', import.meta.url));

let home = '';
let clients: Client[] = [];
const environment = { ...process.env };

beforeEach(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), 'host-')));
  clients = [];
  process.env['CARAVAN_HOST_IDLE_S'] = '30';
});

afterEach(async () => {
  process.env = { ...environment };
  for (const client of clients) client.close();
  for (const { record } of readLocks(home))
    if (processStart(record.pid) !== null) process.kill(record.pid, 'SIGKILL');
  await expect.poll(() => readLocks(home).every(({ life }) => life === 'dead')).toBe(true);
});

async function connect(remarks: string[] = []): Promise<Client> {
  const client = await connectOrStart({ home, entry, onRemark: (text) => remarks.push(text) });
  clients.push(client);
  return client;
}

const pidOf = async (client: Client) => (await client.call('hello', {})).pid;
const trace = () => readFileSync(join(home, 'trace.txt'), 'utf8').trim().split('\n');
const log = () => readFileSync(join(home, 'host.log'), 'utf8');
const gone = (pid: number) => expect.poll(() => processStart(pid), { timeout: 10_000 }).toBeNull();
const note = (client: Client, text: string) =>
  client.call('updateRun', { id: 'r', note: text }).catch(() => undefined);

test('the first client starts a host, the next finds it, and it outlives both', async () => {
  const first = await connect();
  const pid = await pidOf(first);
  expect(pid).not.toBe(process.pid);
  expect(await pidOf(await connect())).toBe(pid);
  for (const client of clients) client.close();
  expect(await pidOf(await connect())).toBe(pid);
  expect(readLocks(home)).toMatchObject([{ record: { pid, state: 'running' }, life: 'alive' }]);
  expect(trace()).toEqual([`open ${pid} clean`]);
});

test('a host belongs to no terminal: it lives when the process that started it is killed with its group', async () => {
  const script = `
    const { connectOrStart } = await import(${JSON.stringify(new URL('../core/host/connect.ts', import.meta.url).href)});
    const client = await connectOrStart({ home: ${JSON.stringify(home)}, entry: ${JSON.stringify(entry)} });
    console.log((await client.call('hello', {})).pid);
    setInterval(() => undefined, 1000);`;
  const starter = spawn(process.execPath, ['--input-type=module', '-e', script], {
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pid = Number(
    await new Promise<string>((resolve) => starter.stdout.once('data', (data) => resolve(String(data)))),
  );
  process.kill(-starter.pid!, 'SIGKILL');
  await gone(starter.pid!);
  expect(await pidOf(await connect())).toBe(pid);
});

test('many starters at once end with one host', async () => {
  const pids = await Promise.all(Array.from({ length: 5 }, async () => pidOf(await connect())));
  expect(new Set(pids).size).toBe(1);
  expect(trace()).toHaveLength(1);
});

test('a killed host is taken over, and the user told', async () => {
  const first = await pidOf(await connect());
  process.kill(first, 'SIGKILL');
  await gone(first);
  const remarks: string[] = [];
  const second = await pidOf(await connect(remarks));
  expect(second).not.toBe(first);
  expect(remarks).toEqual([expect.stringContaining(`process ${first}`)]);
  expect(trace()).toEqual([`open ${first} clean`, `open ${second} unclean`]);
  expect(
    readdirSync(join(home, 'host')).filter((name) => name.endsWith('.sock')),
    "the dead one's socket",
  ).toHaveLength(1);
});

test('SIGTERM closes it cleanly: clients are told, services closed, the lock released', async () => {
  const client = await connect();
  const pid = await pidOf(client);
  const reasons: string[] = [];
  client.on('hostClosing', ({ reason }) => reasons.push(reason));
  await pidOf(client);
  process.kill(pid, 'SIGTERM');
  await gone(pid);
  expect(reasons).toEqual(['SIGTERM']);
  expect(trace()).toEqual([`open ${pid} clean`, `close ${pid}`]);
  expect(readdirSync(join(home, 'host'))).toEqual([]);
  const remarks: string[] = [];
  await connect(remarks);
  expect(remarks).toEqual([]);
});

test('shutdownHost ends it; onlyIfIdle not while it works', async () => {
  const client = await connect();
  const pid = await pidOf(client);
  await note(client, 'busy');
  await expect(client.call('shutdownHost', { onlyIfIdle: true })).rejects.toMatchObject({
    code: 'wrong_state',
  });
  expect(await client.call('shutdownHost', {})).toEqual({});
  await gone(pid);
  expect(trace().at(-1)).toBe(`close ${pid}`);
});

test('with nothing to do it ends by itself; a client, and work, keep it', async () => {
  process.env['CARAVAN_HOST_IDLE_S'] = '0.3';
  const client = await connect();
  const pid = await pidOf(client);
  await new Promise((resolve) => setTimeout(resolve, 800));
  expect(await pidOf(client), 'a client is connected').toBe(pid);
  await note(client, 'busy');
  client.close();
  await new Promise((resolve) => setTimeout(resolve, 800));
  const again = await connect();
  expect(await pidOf(again), 'it was at work').toBe(pid);
  await note(again, 'idle');
  again.close();
  await gone(pid);
  expect(trace().at(-1)).toBe(`close ${pid}`);
  expect(log()).toContain('closing: it had nothing to do');
});

test('a bug that nobody caught is logged and ends it, with everything closed', async () => {
  const client = await connect();
  const pid = await pidOf(client);
  await note(client, 'throw');
  await gone(pid);
  expect(log()).toMatch(/uncaught: Error: planted\n +at /);
  expect(trace().at(-1)).toBe(`close ${pid}`);
  expect(readLocks(home)).toEqual([]);
});

test('an idle host of another version is replaced', async () => {
  process.env['CARAVAN_TEST_VERSION'] = '0.0.1';
  const first = await connectOld();
  delete process.env['CARAVAN_TEST_VERSION'];
  const remarks: string[] = [];
  const second = await pidOf(await connect(remarks));
  expect(second).not.toBe(first);
  expect(remarks).toEqual([expect.stringMatching(/^replacing the idle host of version 0\.0\.1 by /)]);
  expect(trace()).toEqual([`open ${first} clean`, `close ${first}`, `open ${second} clean`]);
});

test('one that works is kept where the contract is the same', async () => {
  process.env['CARAVAN_TEST_VERSION'] = '0.0.1';
  const first = await connectOld('busy');
  delete process.env['CARAVAN_TEST_VERSION'];
  const remarks: string[] = [];
  expect(await pidOf(await connect(remarks))).toBe(first);
  expect(remarks).toEqual([expect.stringContaining('the host is at work and goes on')]);
});

/** Starts a host that claims to be older, without going through the version check. */
async function connectOld(state?: string): Promise<number> {
  const host = spawn(process.execPath, [entry], {
    env: { ...process.env, CARAVAN_HOME: home },
    stdio: 'ignore',
    detached: true,
  });
  await expect.poll(() => readLocks(home)[0]?.record.state, { timeout: 10_000 }).toBe('running');
  if (state !== undefined) {
    const { connectLocalSocket } = await import('../core/host/carriers/localSocket.ts');
    const { createClient } = await import('../core/shared/contract/client.ts');
    const client = createClient(await connectLocalSocket(readLocks(home)[0]!.record.address!));
    await note(client, state);
    client.close();
  }
  return host.pid!;
}

test('what keeps a host from starting reaches who wanted it', async () => {
  process.env['CARAVAN_TEST_REFUSE'] = '1';
  await expect(connect()).rejects.toMatchObject({ code: 'database_newer', mend: 'Update Caravan.' });
  expect(readLocks(home)).toEqual([]);
});

test('a host that ends without a word is reported with its last ones', async () => {
  const broken = join(home, 'broken.ts');
  const { writeFileSync } = await import('node:fs');
  writeFileSync(broken, "throw new Error('no such luck')");
  await expect(connectOrStart({ home, entry: broken })).rejects.toMatchObject({
    code: 'host_unreachable',
    place: { file: join(home, 'host.log') },
  });
});

test('a home with a path too long for a socket works', async () => {
  home = join(home, 'x'.repeat(60), 'y'.repeat(60));
  mkdirSync(home, { recursive: true });
  const pid = await pidOf(await connect());
  const { address } = readLocks(home)[0]!.record;
  expect(address!.startsWith(home)).toBe(false);
  expect(existsSync(address!)).toBe(true);
  process.kill(pid, 'SIGTERM');
  await gone(pid);
  expect(existsSync(address!)).toBe(false);
});
