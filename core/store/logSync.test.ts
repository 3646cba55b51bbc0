import type { FileHandle } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { createLogSync } from './logSync.ts';

test('flushes what was asked for, requests during a flush with one more, and closes behind the last', async () => {
  const told: string[] = [];
  let finish = () => {};
  const handle = {
    async datasync() {
      told.push('flush');
      await new Promise<void>((resolve) => (finish = resolve));
    },
    close: () => Promise.resolve(void told.push('close')),
  } as unknown as FileHandle;
  const log = createLogSync('log', () => Promise.resolve(handle));
  log.request();
  await Promise.resolve();
  for (let i = 0; i < 5; i++) log.request();
  const closed = log.close();
  await expect.poll(() => told).toEqual(['flush']);
  finish();
  await expect.poll(() => told).toEqual(['flush', 'flush']);
  finish();
  await closed;
  expect(told).toEqual(['flush', 'flush', 'close']);
});

test('a log that cannot be flushed is passed over', async () => {
  const log = createLogSync('log', () => Promise.reject(new Error('no such file')));
  log.request();
  await log.close();
});
