/** A process that is its home's host where none lives, and a client of the other where one does. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, expect, test, vi } from 'vitest';
import { fakeServices } from '../../tests/support/fakeServices.ts';
import { createClient } from '../shared/contract/client.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { messagePortCarrier } from './carriers/messagePort.ts';
import { embedHost } from './embedHost.ts';
import { readLocks } from './HostLock.ts';

const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException'];
const before = new Map(signals.map((name) => [name, process.listeners(name as 'SIGINT')]));
afterEach(() => {
  for (const [name, kept] of before)
    for (const listener of process.listeners(name as 'SIGINT'))
      if (!kept.includes(listener)) process.off(name, listener);
});

function embed(home: string, close = vi.fn(async () => undefined)) {
  return embedHost({
    home,
    spawn: () => {
      throw new Error('nothing is computed here');
    },
    onRemark: () => undefined,
    openServices: async () => fakeServices({ listJobs: () => [] }, { close }),
  });
}

async function windowOf(link: Awaited<ReturnType<typeof embedHost>>) {
  const { port1, port2 } = new MessageChannel();
  await link.attach(messagePortCarrier(port1));
  return createClient(messagePortCarrier(port2));
}

test('the first of a home hosts it, the second attaches, and neither ends the other', async () => {
  const home = mkdtempSync(join(tmpdir(), 'embed-'));
  const close = vi.fn(async () => undefined);
  const first = await embed(home, close);
  const second = await embed(home);
  expect([first.isOwn, second.isOwn]).toEqual([true, false]);
  expect(readLocks(home).filter(({ life }) => life === 'alive')).toHaveLength(1);

  const window = await windowOf(second);
  expect(await window.call('listJobs', {})).toEqual([]);
  await second.close();
  expect(close).not.toHaveBeenCalled();
  expect(await (await windowOf(first)).call('listJobs', {})).toEqual([]);

  const lost = new Promise((resolve) => window.onClose(resolve));
  await first.close();
  expect(close).toHaveBeenCalledOnce();
  await lost;
  expect(readLocks(home).filter(({ life }) => life === 'alive')).toEqual([]);
});

test('what keeps the host from starting is told, and the home is free again', async () => {
  const home = mkdtempSync(join(tmpdir(), 'embed-'));
  const failing = embedHost({
    home,
    spawn: () => {
      throw new Error('nothing is computed here');
    },
    onRemark: () => undefined,
    openServices: () => Promise.reject(new CaravanError('disk_full', 'no room for the database')),
  });
  await expect(failing).rejects.toThrow('no room for the database');
  expect(readLocks(home).filter(({ life }) => life === 'alive')).toEqual([]);
});
