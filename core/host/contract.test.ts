/** What holds between a client and a host holds over every carrier: each test here runs over all of them. */
import { EventEmitter } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { fakeServices } from '../../tests/support/fakeServices.ts';
import { createClient, type Client } from '../shared/contract/client.ts';
import type { EventPayload } from '../shared/contract/contract.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Handlers } from '../shared/contract/service.ts';
import type { Carrier } from '../shared/contract/wire.ts';
import { runConfigSchema } from '../shared/run/runConfig.ts';
import { maxAnswerBytes, maxCallBytes } from './carriers/BufferedCarrier.ts';
import { connectLocalSocket, localSocketCarrier } from './carriers/localSocket.ts';
import { messagePortCarrier } from './carriers/messagePort.ts';
import { webSocketCarrier } from './carriers/webSocket.ts';
import { relay } from './embedHost.ts';
import { Host } from './Host.ts';

interface Connection {
  carrier: Carrier;
  /** Stops reading from the network; absent where there is none. */
  pause?: () => void;
  resume?: () => void;
  /** Sends bytes that are no message. */
  sendGarbage?: () => void;
}

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function openHost(given: Partial<Handlers> = {}) {
  const home = mkdtempSync(join(tmpdir(), 'contract-'));
  const pageDir = mkdtempSync(join(tmpdir(), 'page-'));
  writeFileSync(join(pageDir, 'index.html'), '<!doctype html>');
  const log: string[] = [];
  const host = await Host.open({
    home,
    version: '1.2.3',
    log: (line) => log.push(line),
    services: () => fakeServices(given),
    onEnd: () => undefined,
    idleMs: null,
    pageDir,
  });
  cleanUps.push(() => host.close('the test is over'));
  return { host, home, log };
}

const carriers: Record<string, (host: Host, home: string) => Promise<Connection>> = {
  async 'local socket'(host) {
    const socket = createConnection({ path: await host.listenLocally('test') });
    await new Promise((resolve) => socket.once('connect', resolve));
    return {
      carrier: localSocketCarrier(socket, { maxReceiveBytes: maxAnswerBytes, maxSendBytes: maxCallBytes }),
      pause: () => socket.pause(),
      resume: () => socket.resume(),
      sendGarbage: () => socket.write(Buffer.from([0, 0, 0, 2, 0x7b, 0x7b])),
    };
  },
  async WebSocket(host, home) {
    const direct = createClient(await portTo(host));
    const { port } = await direct.call('startServe', { port: 0 });
    const token = readFileSync(join(home, 'host', 'serve-token'), 'utf8').trim();
    const socket = new WebSocket(`ws://127.0.0.1:${port}/contract`, {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
    });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    return {
      carrier: webSocketCarrier(socket, { maxSendBytes: maxCallBytes, ping: false }),
      pause: () => socket.pause(),
      resume: () => socket.resume(),
      sendGarbage: () => socket.send('{{'),
    };
  },
  async 'message port'(host) {
    return { carrier: await portTo(host) };
  },
  async 'message port of Electron'(host) {
    return { carrier: electronPortTo(host) };
  },
  /** The app's window, where another process hosts the home. */
  async 'message port through a local socket'(host) {
    const { port1, port2 } = new MessageChannel();
    relay(messagePortCarrier(port1), await connectLocalSocket(await host.listenLocally('relayed')));
    cleanUps.push(() => port2.close());
    return { carrier: messagePortCarrier(port2) };
  },
};

/** Electron's ports deliver an event that carries the message. */
function electronPortTo(host: Host): Carrier {
  const { port1, port2 } = new MessageChannel();
  const electrons = Object.assign(new EventEmitter(), {
    postMessage: (message: unknown) => port1.postMessage(message),
    start: () => port1.start(),
    close: () => port1.close(),
  });
  port1.on('message', (data) => electrons.emit('message', { data }));
  port1.on('close', () => electrons.emit('close'));
  host.attach(messagePortCarrier(electrons, (event) => (event as { data: unknown }).data));
  cleanUps.push(() => port2.close());
  return messagePortCarrier(port2);
}

function portTo(host: Host): Promise<Carrier> {
  const { port1, port2 } = new MessageChannel();
  host.attach(messagePortCarrier(port1));
  cleanUps.push(() => port2.close());
  return Promise.resolve(messagePortCarrier(port2));
}

describe.each(Object.keys(carriers))('over a %s', (name) => {
  async function connect(given: Partial<Handlers> = {}) {
    const opened = await openHost(given);
    const connection = await carriers[name]!(opened.host, opened.home);
    const client = createClient(connection.carrier);
    cleanUps.push(() => client.close());
    return { ...opened, ...connection, client };
  }

  /** Resolves when everything sent so far has been handled. */
  const settle = (client: Client) => client.call('hello', {});

  test('a call is answered, parameters filled with their defaults', async () => {
    const seen = vi.fn();
    const { client, home } = await connect({
      readRunLog(params) {
        seen(params);
        return { lines: ['äöü', '字', '\u{1f42a}', ''] };
      },
    });
    expect(await client.call('readRunLog', { id: 'r' })).toEqual({ lines: ['äöü', '字', '\u{1f42a}', ''] });
    expect(seen).toHaveBeenCalledExactlyOnceWith({ id: 'r', tail: 200 });
    expect(await client.call('hello', {})).toMatchObject({ version: '1.2.3', home, pid: process.pid });
  });

  test('bad parameters never reach a handler; the error names the field', async () => {
    const startRun = vi.fn();
    const { client } = await connect({ startRun });
    const config = { model: 'm', mix: 'x', numExperts: 2, topK: 3 };
    await expect(client.call('startRun', { config })).rejects.toMatchObject({
      code: 'bad_option',
      place: { field: 'config.topK' },
    });
    await expect(
      client.call('startRun', { config: { ...config, lr: 'fast' as never } }),
    ).rejects.toMatchObject({
      place: { field: 'config.lr' },
    });
    await expect(client.call('getRun', { id: 'r', extra: 1 } as never)).rejects.toMatchObject({
      code: 'bad_option',
      place: { field: 'extra' },
    });
    expect(startRun).not.toHaveBeenCalled();
  });

  test('an error arrives with code, place and mend; what is no CaravanError is a bug and logged', async () => {
    const { client, log } = await connect({
      getRun() {
        throw new CaravanError('bad_file', 'cut short', {
          place: { file: 'f', line: 3 },
          mend: 'Copy it again.',
        });
      },
      getMix: () => Promise.reject(new TypeError('x is undefined')),
    });
    await expect(client.call('getRun', { id: 'r' })).rejects.toMatchObject({
      name: 'CaravanError',
      code: 'bad_file',
      message: 'cut short',
      place: { file: 'f', line: 3 },
      mend: 'Copy it again.',
    });
    await expect(client.call('getMix', { id: 'r' })).rejects.toMatchObject({ code: 'internal' });
    expect(log.join('\n')).toMatch(/bug in getMix: TypeError: x is undefined\n +at /);
  });

  test('a call that no host knows is refused; one named like a property of objects too', async () => {
    const { client } = await connect();
    for (const unknown of ['launchMissiles', 'constructor', '__proto__'])
      await expect(
        Promise.race([
          client.call(unknown as 'hello', {}),
          new Promise((_, reject) => setTimeout(() => reject(new Error('no answer')), 2000)),
        ]),
      ).rejects.toMatchObject({ code: 'bad_option' });
  });

  test('many calls at once each get their own answer, in whatever order they are done', async () => {
    const { client } = await connect({
      async readRunLog({ id }) {
        if (Number(id) % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        return { lines: [id] };
      },
    });
    const ids = Array.from({ length: 600 }, (_, index) => String(index));
    const answers = await Promise.all(ids.map((id) => client.call('readRunLog', { id })));
    expect(answers.map(({ lines }) => lines[0])).toEqual(ids);
  });

  test('events reach those who subscribed, until they unsubscribe', async () => {
    const { client, host } = await connect();
    const first = vi.fn();
    const second = vi.fn();
    const off = client.on('jobLogged', first);
    client.on('jobLogged', second);
    await settle(client);
    host.dispatcher.emit('jobLogged', { id: 'j', line: 'one' });
    host.dispatcher.emit('sourcesChanged', {});
    await settle(client);
    off();
    host.dispatcher.emit('jobLogged', { id: 'j', line: 'two' });
    await settle(client);
    expect(first.mock.calls).toEqual([[{ id: 'j', line: 'one' }]]);
    expect(second).toHaveBeenCalledTimes(2);
  });

  test('a large answer arrives whole', async () => {
    const line = 'ß\u{1f42a}"\\\n'.repeat(200_000);
    const { client } = await connect({ readRunLog: () => ({ lines: [line, line] }) });
    const { lines } = await client.call('readRunLog', { id: 'r' });
    expect(lines[0] === line && lines[1] === line).toBe(true);
  });

  test('when the host goes, open calls fail and everyone is told', async () => {
    const { client, host } = await connect({ getRun: () => new Promise<never>(() => undefined) });
    const closing = vi.fn();
    const closed = new Promise((resolve) => client.onClose(resolve));
    client.on('hostClosing', closing);
    const open = expect(client.call('getRun', { id: 'r' })).rejects.toMatchObject({
      code: 'host_unreachable',
    });
    await settle(client);
    await host.close('going home');
    await open;
    await closed;
    expect(closing).toHaveBeenCalledExactlyOnceWith({ reason: 'going home' });
    await expect(client.call('hello', {})).rejects.toMatchObject({ code: 'host_unreachable' });
  });

  test('an answer is cancelled when the only one who waits for it is gone, unless a thread keeps it', async () => {
    const cancelAnswer = vi.fn(() => ({}));
    const { client, host } = await connect({
      generateAnswer: () => new Promise<never>(() => undefined),
      cancelAnswer,
    });
    const ask = { model: 'm', messages: [{ role: 'user' as const, content: 'hello' }], sampling: {} };
    const asked = [
      client.call('generateAnswer', { ...ask, answerId: 'heard by nobody' }),
      client.call('generateAnswer', { ...ask, answerId: 'kept', threadId: 't' }),
    ].map((call) => call.catch(() => undefined));
    await settle(client);
    const others = host.dispatcher.clientCount - 1;
    client.close();
    await Promise.all(asked);
    await expect.poll(() => cancelAnswer.mock.calls).toEqual([[{ answerId: 'heard by nobody' }]]);
    await expect.poll(() => host.dispatcher.clientCount).toBe(others);
  });

  test('a message that is none ends that connection and nothing else', async () => {
    const { client, carrier, host, home } = await connect();
    const closed = new Promise((resolve) => client.onClose(resolve));
    carrier.send({ type: 'call', id: 'seven' });
    await closed;
    const another = createClient((await carriers['message port']!(host, home)).carrier);
    expect(await another.call('hello', {})).toMatchObject({ version: '1.2.3' });
  });
});

describe.each(['local socket', 'WebSocket'])('over a %s, which has bytes and a network', (name) => {
  async function connect(given: Partial<Handlers> = {}) {
    const opened = await openHost(given);
    const connection = await carriers[name]!(opened.host, opened.home);
    const client = createClient(connection.carrier);
    cleanUps.push(() => client.close());
    return { ...opened, ...connection, client };
  }

  test('a call over the limit is refused where it is made', async () => {
    const { client } = await connect({ tokenize: () => ({ ids: [] }) });
    const texts = ['a'.repeat(maxCallBytes)];
    await expect(client.call('tokenize', { model: 'm', texts })).rejects.toMatchObject({
      code: 'bad_option',
    });
    expect(await client.call('tokenize', { model: 'm', texts: ['a'.repeat(maxCallBytes - 200)] })).toEqual({
      ids: [],
    });
  });

  test('bytes that are no message end the connection', async () => {
    const { client, sendGarbage } = await connect();
    const closed = new Promise((resolve) => client.onClose(resolve));
    sendGarbage!();
    await closed;
  });

  test('a slow client loses no step and gets the newest state; the host keeps little for it', async () => {
    const { client, host, pause, resume } = await connect();
    const steps: number[] = [];
    const runs: string[] = [];
    client.on('runStepped', (event) => steps.push(...event.steps.map(({ step }) => step)));
    client.on('runChanged', (run) => runs.push(run.note));
    await client.call('hello', {});
    pause!();
    const pad = 'x'.repeat(10_000);
    const before = process.memoryUsage().heapUsed;
    for (let number = 1; number <= 3000; number++) {
      host.dispatcher.emit('runStepped', { id: 'r', steps: [{ ...emptyStep, step: number }] });
      host.dispatcher.emit('runChanged', { ...fullRun, note: `${number} ${pad}` });
      if (number % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    // 3000 states of 10 kB were told; kept is one, beside the steps and what the system buffers.
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(20e6);
    resume!();
    await expect.poll(() => steps.length, { timeout: 5000 }).toBe(3000);
    expect(steps).toEqual(Array.from({ length: 3000 }, (_, index) => index + 1));
    await expect.poll(() => runs.at(-1)).toBe(`3000 ${pad}`);
    expect(runs.length).toBeLessThan(3000);
  });

  test('a client that reads nothing for good is let go', async () => {
    const { client, host, pause } = await connect();
    client.on('jobLogged', () => undefined);
    await client.call('hello', {});
    const others = host.dispatcher.clientCount - 1;
    pause!();
    for (let number = 0; number < 40_000 && host.dispatcher.clientCount > others; number++) {
      host.dispatcher.emit('jobLogged', { id: 'j', line: 'x'.repeat(1000) });
      if (number % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await expect.poll(() => host.dispatcher.clientCount, { timeout: 3000 }).toBe(others);
  });
});

const emptyStep: EventPayload<'runStepped'>['steps'][number] = {
  step: 0,
  epoch: 0,
  loss: 1,
  lossBySource: [],
  balanceLoss: null,
  balanceGradNorm: null,
  lr: 0,
  gradNorm: null,
  skipped: false,
  tokens: 0,
  targetTokens: 0,
  paddingTokens: 0,
  stepMs: 0,
  tokensPerSecond: 0,
  memoryBytes: 0,
  expertShares: [],
  at: 0,
};

const fullRun: EventPayload<'runChanged'> = {
  id: 'r',
  name: 'run',
  state: 'running',
  phase: null,
  config: runConfigSchema.parse({ model: 'm', mix: 'x' }),
  dir: '',
  modelName: '',
  mixName: '',
  step: 0,
  totalSteps: null,
  loss: null,
  tokensPerSecond: null,
  etaMs: null,
  elapsedMs: 0,
  firstEvaluation: null,
  lastEvaluation: null,
  lastCheckpoint: null,
  stepZeroDifference: null,
  quantizationDifference: null,
  error: null,
  crash: null,
  note: '',
  tags: [],
  starred: false,
  archived: false,
  trashedAt: null,
  attempt: 1,
  createdAt: 0,
  startedAt: null,
  endedAt: null,
};
