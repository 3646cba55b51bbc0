import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { fakeHandlers } from '../../../tests/support/fakeServices.ts';
import { OpenAiEndpoint } from '../openai/OpenAiEndpoint.ts';
import type { Caller } from '../Dispatcher.ts';
import { defaultPort } from './PageServer.ts';
import { Serving } from './Serving.ts';

let serving: Serving | undefined;
afterEach(() => serving?.close());

function setUp({ built = true } = {}) {
  const home = mkdtempSync(join(tmpdir(), 'serving-'));
  const pageDir = mkdtempSync(join(tmpdir(), 'page-'));
  if (built) writeFileSync(join(pageDir, 'index.html'), 'the page');
  const openAi = new OpenAiEndpoint({
    keyFile: join(home, 'openai-key'),
    handlers: fakeHandlers({}),
    log: () => undefined,
  });
  serving = new Serving({ home, openAi, pageDir, attach: () => undefined, log: () => undefined });
  return { serving, token: () => readFileSync(join(home, 'host', 'serve-token'), 'utf8') };
}

function makeCaller(): Caller & { leave: () => void } {
  const listeners: (() => void)[] = [];
  return {
    onGone: (listener) => listeners.push(listener),
    leave: () => listeners.forEach((listener) => listener()),
  };
}

const params = { host: '127.0.0.1', port: 0, allowedHosts: [], newToken: false };

test('a page that is not built is named with the line that builds it', async () => {
  await expect(setUp({ built: false }).serving.start(params, makeCaller())).rejects.toMatchObject({
    code: 'missing_dependency',
    mend: 'Run: npm run build:renderer',
  });
});

test('who asks again gets the same server and an address of their own', async () => {
  const { serving } = setUp();
  const first = await serving.start(params, makeCaller());
  const second = await serving.start(params, makeCaller());
  expect(second.port).toBe(first.port);
  expect(second.url).not.toBe(first.url);
  await expect(serving.start({ ...params, port: first.port + 1 }, makeCaller())).rejects.toMatchObject({
    code: 'wrong_state',
    place: { field: 'port' },
  });
  await expect(serving.start({ ...params, host: '0.0.0.0' }, makeCaller())).rejects.toMatchObject({
    code: 'wrong_state',
    place: { field: 'host' },
  });
});

test('it stays open until the last of those who asked has stopped or is gone', async () => {
  const { serving } = setUp();
  const [stops, vanishes, stranger] = [makeCaller(), makeCaller(), makeCaller()];
  await serving.start(params, stops);
  await serving.start(params, vanishes);
  await serving.stop(stranger);
  await serving.stop(stops);
  expect(serving.isOpen).toBe(true);
  vanishes.leave();
  await expect.poll(() => serving.isOpen).toBe(false);
  await serving.start(params, stops);
  expect(serving.isOpen, 'and can be opened again').toBe(true);
});

test('the token stays the same over restarts, unless a new one is asked for', async () => {
  const { serving, token } = setUp();
  const caller = makeCaller();
  await serving.start(params, caller);
  const first = token();
  await serving.stop(caller);
  await serving.start(params, caller);
  expect(token()).toBe(first);
  await serving.start({ ...params, newToken: true }, caller);
  expect(token()).not.toBe(first);
});

test('without a port it takes the default one or the next that is free', async () => {
  const blocker = createServer().listen(defaultPort, '127.0.0.1');
  // In use by this test or by somebody else: either way it is not free.
  await new Promise((resolve) => blocker.once('listening', resolve).once('error', resolve));
  const { serving } = setUp();
  const { port } = await serving.start({ ...params, port: undefined }, makeCaller());
  expect(port).toBeGreaterThan(defaultPort);
  expect(port).toBeLessThan(defaultPort + 32);
  blocker.close();
});
