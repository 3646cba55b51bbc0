/** The endpoint as programs meet it: raw HTTP against the page's server, with calls that answer from a script. */
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { fakeServices } from '../../../tests/support/fakeServices.ts';
import { createClient, type Client } from '../../shared/contract/client.ts';
import type { CallParams, CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { MessageChannel } from 'node:worker_threads';
import { messagePortCarrier } from '../carriers/messagePort.ts';
import { Host } from '../Host.ts';

interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

let home: string;
let host: Host;
let client: Client;
let port: number;
let key: string;
let log: string[];
let asked: unknown[];
let answer: (params: CallParams<'generateAnswer'>) => Promise<CallResult<'generateAnswer'>>;
const cancelled = vi.fn();

const facts = { stopReason: 'eos', promptTokens: 7, timeToFirstTokenMs: 1, tokensPerSecond: 9 } as const;
const whole = (text: string, stopReason: 'eos' | 'length' = 'eos') =>
  ({ ...facts, text, ids: [1, 2, 3], stopReason }) as unknown as CallResult<'generateAnswer'>;

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'openai-'));
  const pageDir = mkdtempSync(join(tmpdir(), 'page-'));
  writeFileSync(join(pageDir, 'index.html'), 'the page');
  log = [];
  asked = [];
  cancelled.mockClear();
  answer = async ({ answerId }) => {
    for (const text of ['Two ', 'humps.']) host.emit('answerToken', { answerId, text, tokens: 1 });
    return whole('Two humps.');
  };
  host = await Host.open({
    home,
    version: '1',
    log: (line) => log.push(line),
    idleMs: null,
    pageDir,
    onEnd: () => undefined,
    services: () =>
      fakeServices({
        listModels: () => [{ name: 'tiny', addedAt: 5000 }] as never,
        listRuns: () =>
          [
            { name: 'first', createdAt: 9000, state: 'completed', lastCheckpoint: 'step-000001' },
            { name: 'young', createdAt: 9000, state: 'running', lastCheckpoint: null },
          ] as never,
        generateAnswer: (params) => {
          asked.push(params);
          if (params.model === 'none')
            throw new CaravanError('not_found', "'none' is no model in the library");
          return answer(params);
        },
        completeText: (params) => {
          asked.push(params);
          host.emit('answerToken', { answerId: params.answerId, text: ' humps', tokens: 1 });
          return Promise.resolve({ ...whole(' humps', 'length') });
        },
        cancelAnswer: cancelled,
      }),
  });
  const { port1, port2 } = new MessageChannel();
  host.attach(messagePortCarrier(port1));
  client = createClient(messagePortCarrier(port2));
  ({ port } = await client.call('startServe', { port: 0 }));
  key = (await client.call('setOpenAi', { enabled: true })).key!;
});
afterEach(async () => {
  client.close();
  await host.close('the test is over');
});

function send(
  path: string,
  body: string | object | null,
  headers: Record<string, string> = {},
  onPiece?: (piece: string, destroy: () => void) => void,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const text = body === null ? null : typeof body === 'string' ? body : JSON.stringify(body);
    const request = httpRequest(
      {
        port,
        host: '127.0.0.1',
        path,
        method: text === null ? 'GET' : 'POST',
        headers: {
          authorization: `Bearer ${key}`,
          ...(text !== null && {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(text),
          }),
          ...headers,
        },
      },
      (response) => {
        let received = '';
        response.setEncoding('utf8').on('data', (piece: string) => {
          received += piece;
          onPiece?.(piece, () => request.destroy());
        });
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode!, headers: response.headers, body: received }),
        );
      },
    );
    request.on('error', reject);
    request.end(text ?? undefined);
  });
}

const errorOf = ({ body }: Reply) => (JSON.parse(body) as { error: Record<string, unknown> }).error;
const chat = { model: 'tiny', messages: [{ role: 'user', content: 'How many?' }] };
const events = ({ body }: Reply) =>
  body
    .trimEnd()
    .split('\n\n')
    .map((event) => event.replace(/^data: /, ''))
    .map((data) => (data === '[DONE]' ? data : (JSON.parse(data) as Record<string, unknown>)));

test('lists what can be talked to', async () => {
  const reply = await send('/v1/models', null);
  expect(reply.status).toBe(200);
  expect(JSON.parse(reply.body)).toEqual({
    object: 'list',
    data: [
      { id: 'tiny', object: 'model', created: 5, owned_by: 'caravan' },
      { id: 'run:first', object: 'model', created: 9, owned_by: 'caravan' },
    ],
  });
  expect(JSON.parse((await send('/v1/models/run%3Afirst', null)).body)).toMatchObject({ id: 'run:first' });
  expect(errorOf(await send('/v1/models/none', null))).toMatchObject({ code: 'model_not_found' });
});

test('answers a chat, whole', async () => {
  const reply = await send('/v1/chat/completions', {
    ...chat,
    messages: [
      {
        role: 'developer',
        content: [
          { type: 'text', text: 'Be ' },
          { type: 'text', text: 'brief.' },
        ],
      },
      ...chat.messages,
    ],
    temperature: 0,
    max_completion_tokens: 9,
    stop: '###',
    seed: 4,
  });
  expect(reply.status).toBe(200);
  expect(JSON.parse(reply.body)).toMatchObject({
    id: expect.stringMatching(/^chatcmpl-/),
    object: 'chat.completion',
    model: 'tiny',
    choices: [{ index: 0, message: { role: 'assistant', content: 'Two humps.' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
  });
  expect(asked[0]).toMatchObject({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'How many?' },
    ],
    sampling: { temperature: 0, maxTokens: 9, stop: ['###'], seed: 4 },
    threadId: null,
    continues: false,
  });
  expect(cancelled).not.toHaveBeenCalled();
});

test('streams a chat as server-sent events, with usage where asked', async () => {
  const reply = await send('/v1/chat/completions', {
    ...chat,
    stream: true,
    stream_options: { include_usage: true },
  });
  expect(reply.headers['content-type']).toMatch(/^text\/event-stream/);
  const all = events(reply);
  expect(all.at(-1)).toBe('[DONE]');
  expect(all.slice(0, -1).map((event) => (event as { choices: unknown[] }).choices[0])).toMatchObject(
    [
      { delta: { role: 'assistant', content: '' }, finish_reason: null },
      { delta: { content: 'Two ' }, finish_reason: null },
      { delta: { content: 'humps.' }, finish_reason: null },
      { delta: {}, finish_reason: 'stop' },
      // The last has usage and no choice.
    ]
      .slice(0, 4)
      .concat([undefined as never]),
  );
  expect(all.at(-2)).toMatchObject({
    object: 'chat.completion.chunk',
    choices: [],
    usage: { total_tokens: 10 },
  });
  expect(new Set(all.slice(0, -1).map((event) => (event as { id: string }).id)).size).toBe(1);
});

test('goes on with a text, whole and streamed', async () => {
  const reply = await send('/v1/completions', { model: 'tiny', prompt: 'Two', max_tokens: 1 });
  expect(JSON.parse(reply.body)).toMatchObject({
    object: 'text_completion',
    choices: [{ text: ' humps', finish_reason: 'length' }],
  });
  expect(asked[0]).toMatchObject({ text: 'Two', sampling: { maxTokens: 1, temperature: 1 } });
  const streamed = events(await send('/v1/completions', { model: 'tiny', prompt: ['Two'], stream: true }));
  expect(streamed).toMatchObject([
    { choices: [{ text: ' humps', finish_reason: null }] },
    { choices: [{ text: '', finish_reason: 'length' }] },
    '[DONE]',
  ]);
});

test('a client that hangs up ends its answer', async () => {
  const finish = Promise.withResolvers<CallResult<'generateAnswer'>>();
  answer = ({ answerId }) => {
    host.emit('answerToken', { answerId, text: 'On', tokens: 1 });
    return finish.promise;
  };
  await expect(
    send('/v1/chat/completions', { ...chat, stream: true }, {}, (_piece, destroy) => destroy()),
  ).rejects.toThrow();
  await vi.waitFor(() => expect(cancelled).toHaveBeenCalledOnce());
  finish.resolve(whole('On'));
});

describe('refuses in its own form', () => {
  test.each([
    ['no key', { authorization: '' }, 401, 'invalid_api_key'],
    ['another key', { authorization: 'Bearer sk-caravan-other' }, 401, 'invalid_api_key'],
    ['a body of another type', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type'],
  ])('%s', async (_, headers, status, code) => {
    const reply = await send('/v1/chat/completions', chat, headers);
    expect([reply.status, errorOf(reply)['code']]).toEqual([status, code]);
    expect(reply.headers['access-control-allow-origin']).toBeUndefined();
  });

  test.each([
    ['no JSON', '{', 400, 'invalid_json', null],
    ['no messages', { model: 'tiny', messages: [] }, 400, 'unsupported_value', 'messages'],
    ['tools', { ...chat, tools: [{ type: 'function' }] }, 400, 'unsupported_value', 'tools.0'],
    ['several answers', { ...chat, n: 2 }, 400, 'unsupported_value', 'n'],
    [
      'pictures',
      { model: 'tiny', messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      400,
      'unsupported_value',
      'messages.0.content',
    ],
    ['a model that is not there', { ...chat, model: 'none' }, 404, 'model_not_found', 'model'],
    ['too much', `"${'x'.repeat(4 * 2 ** 20)}"`, 413, 'request_too_large', null],
  ])('%s', async (_, body, status, code, param) => {
    const reply = await send('/v1/chat/completions', body);
    expect([reply.status, errorOf(reply)]).toMatchObject([
      status,
      { code, param, type: 'invalid_request_error' },
    ]);
  });

  test('another path or method', async () => {
    expect((await send('/v1/embeddings', {})).status).toBe(404);
    const reply = await send('/v1/chat/completions', null);
    expect([reply.status, reply.headers['allow']]).toEqual([405, 'POST']);
  });

  test('pages of other sites, and names that are not its own, before any key is looked at', async () => {
    expect((await send('/v1/models', null, { origin: 'https://evil.example' })).status).toBe(403);
    expect((await send('/v1/models', null, { 'sec-fetch-site': 'cross-site' })).status).toBe(403);
    expect((await send('/v1/models', null, { host: `evil.example:${port}` })).status).toBe(403);
  });

  test('what the model says is wrong, also when the stream has begun', async () => {
    answer = ({ answerId }) => {
      host.emit('answerToken', { answerId, text: 'On', tokens: 1 });
      return Promise.reject(new CaravanError('out_of_memory', 'no room for the context'));
    };
    expect((await send('/v1/chat/completions', chat)).status).toBe(503);
    const all = events(await send('/v1/chat/completions', { ...chat, stream: true }));
    expect(all.at(-1)).toMatchObject({ error: { code: 'out_of_memory', type: 'server_error' } });
  });

  test('more answers at once than one machine gives', async () => {
    const finish = Promise.withResolvers<CallResult<'generateAnswer'>>();
    answer = () => finish.promise;
    const open = Array.from({ length: 8 }, () => send('/v1/chat/completions', chat));
    await vi.waitFor(() => expect(asked).toHaveLength(8));
    const reply = await send('/v1/chat/completions', chat);
    expect([reply.status, errorOf(reply)]).toMatchObject([429, { code: 'rate_limit_exceeded' }]);
    finish.resolve(whole('x'));
    await Promise.all(open);
  });
});

describe('its key', () => {
  test('is told once, kept as a hash, and ends when another is made; the page and its token open nothing', async () => {
    expect(key).toMatch(/^sk-caravan-[\w-]{43}$/);
    expect(await client.call('setOpenAi', { enabled: true })).toMatchObject({
      enabled: true,
      key: null,
      url: `http://127.0.0.1:${port}/v1`,
    });
    const file = join(home, 'host', 'openai-key');
    expect(readFileSync(file, 'utf8')).not.toContain(key);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const serveToken = readFileSync(join(home, 'host', 'serve-token'), 'utf8').trim();
    expect((await send('/v1/models', null, { authorization: `Bearer ${serveToken}` })).status).toBe(401);
    expect((await send('/index.html', null)).status).toBe(401);
    const old = key;
    key = (await client.call('setOpenAi', { enabled: true, newKey: true })).key!;
    expect((await send('/v1/models', null)).status).toBe(200);
    expect((await send('/v1/models', null, { authorization: `Bearer ${old}` })).status).toBe(401);
    expect(log.join()).not.toContain(key);
  });

  test('opens nothing while the endpoint is off', async () => {
    expect(await client.call('setOpenAi', { enabled: false })).toMatchObject({
      enabled: false,
      hasKey: true,
      key: null,
    });
    const reply = await send('/v1/models', null);
    expect([reply.status, errorOf(reply)['code']]).toEqual([404, 'unknown_url']);
  });
});
