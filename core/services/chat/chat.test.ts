import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { tinyModelSummary, tinyTokenizer } from '../../../tests/support/fakeData.ts';
import { createFakeEngines, type FakeEngines } from '../../../tests/support/fakeEngines.ts';
import type { GenerateRequest } from '../../engine/client.ts';
import {
  answerSchema,
  chatMessageSchema,
  samplingSchema,
  type Answer,
  type ChatMessage,
} from '../../shared/chat/chat.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import type { Models, ResolvedModel } from '../models/index.ts';
import { createChatService, type ChatService } from './index.ts';

let dir: string;
let store: Store;
let engines: FakeEngines;
let service: ChatService;
let told: { name: string; payload: unknown }[];
let now: number;
let requests: GenerateRequest[];
let resolved: ResolvedModel;
let storedDtypes: string[];

const answer: Answer = {
  text: 'It is four.',
  ids: [7, 8, 2],
  stopReason: 'eos',
  promptTokens: 5,
  timeToFirstTokenMs: 3,
  tokensPerSecond: 100,
};
const sampling = samplingSchema.parse({});
const ask: Message[] = [{ role: 'user', content: 'What is two and two?' }];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'chat-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  engines = createFakeEngines();
  told = [];
  requests = [];
  now = 1000;
  storedDtypes = ['BF16'];
  resolved = {
    name: 'tiny',
    model: null,
    dir: '/m',
    tokenizerPath: '/m/tokenizer.json',
    ...tinyTokenizer,
    trained: null,
  };
  engines.answers.generate = (request, onToken) => {
    requests.push(request);
    onToken('It is', 2);
    now += 100;
    onToken(' four.', 3);
    return Promise.resolve(answer);
  };
  const models = {
    resolve: () => Promise.resolve(resolved),
    inspect: () => Promise.resolve({ ...tinyModelSummary, storedDtypes }),
  } as unknown as Models;
  service = createChatService({
    store,
    engines,
    models,
    emit: (name, payload) => void told.push({ name, payload }),
    clock: { now: () => now },
  });
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

const trained = (method: 'pesc' | 'lora') => ({
  runId: 'r',
  runName: 'first',
  modelDir: '/m',
  baseIdentity: null,
  checkpointDir: '/r/step-000010',
  config: runConfigSchema.parse({ model: 'tiny', mix: 'x', method, baseDtype: 'nf4', computeDtype: 'bf16' }),
  template: 'model' as const,
});
const generate = (more: object = {}) =>
  service.handlers.generateAnswer({
    answerId: 'a1',
    model: 'tiny',
    messages: ask,
    template: 'auto',
    sampling,
    threadId: null,
    continues: false,
    ...more,
  });

describe('an answer', () => {
  test('streams its tokens and comes whole', async () => {
    expect(answerSchema.parse(await generate())).toEqual(answer);
    expect((await generate()).facts).toMatchObject({
      stopReason: 'eos',
      tokens: 3,
      contextSize: tinyModelSummary.maxPositions,
      template: 'camelidae',
      sampling,
    });
    told.splice(2);
    expect(told).toEqual([
      { name: 'answerToken', payload: { answerId: 'a1', text: 'It is', tokens: 2 } },
      { name: 'answerToken', payload: { answerId: 'a1', text: ' four.', tokens: 3 } },
    ]);
    expect(requests[0]).toMatchObject({
      messages: ask,
      tokenizerPath: '/m/tokenizer.json',
      stopIds: [2],
      sampling,
    });
  });

  test('many tokens at once become few messages, none lost', async () => {
    engines.answers.generate = (_, onToken) => {
      for (let i = 1; i <= 1000; i++) {
        now += 1;
        onToken(`${i} `, i);
      }
      return Promise.resolve(answer);
    };
    await generate();
    const texts = told.map(({ payload }) => (payload as { text: string }).text);
    expect(texts.length).toBeLessThan(40);
    expect(texts.join('')).toBe(Array.from({ length: 1000 }, (_, i) => `${i + 1} `).join(''));
  });

  test.each([
    ['a plain model of bf16 weights', () => undefined, {}, { baseDtype: 'bf16', computeDtype: 'f32' }],
    [
      'one of other weights',
      () => (storedDtypes = ['F16', 'BF16']),
      {},
      { baseDtype: 'f32', computeDtype: 'f32' },
    ],
    ['one as asked', () => undefined, { baseDtype: 'nf4' }, { baseDtype: 'nf4', computeDtype: 'f32' }],
    [
      'a run as trained',
      () => (resolved.trained = trained('pesc')),
      {},
      { baseDtype: 'nf4', computeDtype: 'bf16', checkpointDir: '/r/step-000010' },
    ],
    [
      'a run in f32',
      () => (resolved.trained = trained('pesc')),
      { baseDtype: 'f32' },
      { baseDtype: 'f32', computeDtype: 'f32' },
    ],
  ])('opens %s', async (_, prepare, more, expected) => {
    prepare();
    await generate(more);
    expect(requests[0]!.model).toMatchObject({ modelDir: '/m', ...expected });
  });

  test.each([
    ['auto', () => undefined, 'camelidae'],
    ['auto', () => (resolved.tokens = { ...resolved.tokens, chatTemplate: '{{ x }}' }), 'model'],
    ['auto', () => (resolved.trained = trained('lora')), 'model'],
    ['camelidae', () => (resolved.trained = trained('lora')), 'camelidae'],
  ])('template %s', async (template, prepare, expected) => {
    prepare();
    await generate({ template });
    expect(requests[0]!.template).toBe(expected);
  });

  test('an id that is on its way, and a conversation without a question, are refused', async () => {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    engines.answers.generate = () => promise;
    const first = generate();
    await expect(generate()).rejects.toMatchObject({ code: 'bad_option', place: { field: 'answerId' } });
    resolve(answer);
    await first;
    await expect(generate({ messages: [{ role: 'assistant', content: 'x' }] })).rejects.toMatchObject({
      code: 'bad_option',
    });
  });

  test('is cancelled by its id', async () => {
    const cancelled: string[] = [];
    const { promise, resolve } = Promise.withResolvers<Answer>();
    engines.answers.generate = (request) => {
      requests.push(request);
      return promise;
    };
    engines.answers.cancel = (id) => {
      cancelled.push(id);
      resolve({ ...answer, stopReason: 'cancelled' });
    };
    const pending = generate();
    await service.handlers.cancelAnswer({ answerId: 'other' });
    await expect.poll(() => requests.length).toBe(1);
    await service.handlers.cancelAnswer({ answerId: 'a1' });
    expect((await pending).stopReason).toBe('cancelled');
    expect(cancelled).toEqual(['a1']);
  });
});

test('an answer that is cancelled while its model is looked up never begins', async () => {
  engines.answers.cancel = () => undefined;
  const pending = generate();
  await service.handlers.cancelAnswer({ answerId: 'a1' });
  await expect(pending).rejects.toMatchObject({ code: 'cancelled' });
  expect(requests).toEqual([]);
});

describe('threads', () => {
  const read = (id: string) =>
    service.handlers.readThread({ id }) as { messages: { role: string; content: string }[] };
  const contents = (id: string) => read(id).messages.map(({ role, content }) => `${role}: ${content}`);

  test('keep question and answer, and what follows', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    await generate({ threadId: thread.id });
    const messages: Message[] = [
      ...ask,
      { role: 'assistant', content: answer.text },
      { role: 'user', content: 'And three?' },
    ];
    await generate({ threadId: thread.id, messages });
    expect(contents(thread.id)).toEqual([
      'user: What is two and two?',
      'assistant: It is four.',
      'user: And three?',
      'assistant: It is four.',
    ]);
    const [, kept] = read(thread.id).messages;
    expect(chatMessageSchema.parse(kept)).toMatchObject({
      model: 'tiny',
      answer: { stopReason: 'eos', promptTokens: 5 },
    });
  });

  test('asking again, or otherwise, replaces what came after', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    await generate({ threadId: thread.id });
    await generate({ threadId: thread.id });
    expect(contents(thread.id)).toHaveLength(2);
    await generate({ threadId: thread.id, messages: [{ role: 'user', content: 'Other?' }] });
    expect(contents(thread.id)).toEqual(['user: Other?', 'assistant: It is four.']);
  });

  test('another system prompt replaces no answer', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    const system = (content: string): Message => ({ role: 'system', content });
    await generate({ threadId: thread.id, messages: [system('Be short.'), ...ask] });
    const [, , first] = (service.handlers.readThread({ id: thread.id }) as { messages: ChatMessage[] })
      .messages;
    const more: Message[] = [
      ...ask,
      { role: 'assistant', content: answer.text },
      { role: 'user', content: 'Why?' },
    ];
    await generate({ threadId: thread.id, messages: [system('Be long.'), ...more] });
    expect(contents(thread.id).slice(0, 2)).toEqual(['system: Be long.', 'user: What is two and two?']);
    expect(
      (service.handlers.readThread({ id: thread.id }) as { messages: ChatMessage[] }).messages[2],
    ).toEqual(first);
    await generate({ threadId: thread.id, messages: more });
    expect(contents(thread.id)[0]).toBe('user: What is two and two?');
  });

  test('an answer that was cut goes on in its own message', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    await generate({ threadId: thread.id });
    const messages: Message[] = [...ask, { role: 'assistant', content: answer.text }];
    await generate({ threadId: thread.id, messages, continues: true });
    expect(contents(thread.id)).toEqual(['user: What is two and two?', 'assistant: It is four.It is four.']);
    await expect(generate({ messages: ask, continues: true })).rejects.toMatchObject({ code: 'bad_option' });
  });

  test('a branch holds what came up to its message, and the original stays', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    await generate({ threadId: thread.id });
    const [question] = (service.handlers.readThread({ id: thread.id }) as { messages: ChatMessage[] })
      .messages;
    const branch = await service.handlers.branchThread({ id: thread.id, messageId: question!.id });
    expect(branch).toMatchObject({ title: 'Sums (branch)', parent: null });
    expect(contents(branch.id)).toEqual(['user: What is two and two?']);
    expect(contents(thread.id)).toHaveLength(2);
    await expect(
      (async () => service.handlers.branchThread({ id: thread.id, messageId: 'x' }))(),
    ).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  test('panes go with their thread, unless they were let go', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    const [pane, free] = [
      await service.handlers.createThread({ title: 'Sums', model: 'base', parent: thread.id }),
      await service.handlers.createThread({ title: 'Sums', model: 'other', parent: thread.id }),
    ];
    await expect(
      (async () => service.handlers.createThread({ title: 'x', model: 'tiny', parent: pane.id }))(),
    ).rejects.toMatchObject({ code: 'bad_option' });
    await service.handlers.updateThread({ id: free.id, parent: null, title: 'Free' });
    await service.handlers.removeThread({ id: thread.id });
    expect(await service.handlers.listThreads({})).toMatchObject([
      { id: free.id, title: 'Free', parent: null },
    ]);
  });

  test('are found by title and by what was said, whatever the text holds', async () => {
    const first = await service.handlers.createThread({ title: '100 % sure_', model: 'tiny', parent: null });
    const second = await service.handlers.createThread({ title: 'Other', model: 'tiny', parent: null });
    now += 10;
    await generate({ threadId: second.id });
    const search = (text: string) =>
      (
        service.handlers.searchThreads({ text, limit: 50 }) as { thread: { id: string }; excerpt: string }[]
      ).map(({ thread, excerpt }) => [thread.id, excerpt]);
    expect(search('two AND two')).toEqual([[second.id, 'What is two and two?']]);
    expect(search('100 %')).toEqual([[first.id, '']]);
    expect(search('_')).toEqual([[first.id, '']]);
    expect(search('\\')).toEqual([]);
    expect(search('nothing of the kind')).toEqual([]);
  });

  test('an answer that breaks off keeps what was said', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    engines.answers.generate = (_, onToken) => {
      onToken('It is', 2);
      return Promise.reject(new CaravanError('engine_died', 'gone'));
    };
    await expect(generate({ threadId: thread.id })).rejects.toMatchObject({ code: 'engine_died' });
    expect(contents(thread.id)).toEqual(['user: What is two and two?', 'assistant: It is']);
  });

  test('a long answer is kept every second', async () => {
    const thread = await service.handlers.createThread({ title: 'Sums', model: 'tiny', parent: null });
    let seen: string[] = [];
    engines.answers.generate = (_, onToken) => {
      now += 600;
      onToken('one ', 1);
      now += 600;
      onToken('two ', 2);
      seen = contents(thread.id);
      return Promise.resolve(answer);
    };
    await generate({ threadId: thread.id });
    expect(seen).toEqual(['user: What is two and two?', 'assistant: one two ']);
    expect(contents(thread.id).at(-1)).toBe('assistant: It is four.');
  });

  test('are listed by last use and removed with their messages', async () => {
    const first = await service.handlers.createThread({ title: 'First', model: 'tiny', parent: null });
    now += 10;
    const second = await service.handlers.createThread({ title: 'Second', model: 'tiny', parent: null });
    now += 10;
    await generate({ threadId: first.id });
    expect((await service.handlers.listThreads({})).map(({ title }) => title)).toEqual(['First', 'Second']);
    await service.handlers.removeThread({ id: first.id });
    expect(store.all('SELECT * FROM messages')).toEqual([]);
    expect(await service.handlers.listThreads({})).toMatchObject([{ id: second.id }]);
    await expect(generate({ threadId: first.id })).rejects.toMatchObject({ code: 'not_found' });
  });
});

test('scores rows in order', async () => {
  engines.answers.score = (_model, _path, rows) =>
    Promise.resolve(
      rows.map((_, i) => ({
        logprob: -i,
        tokenLogprobs: Float64Array.of(-i, -Infinity),
        ids: [i, 1],
        greedy: i === 0,
      })),
    );
  const rows = [
    { context: 'a', continuation: 'b' },
    { context: 'c', continuation: 'd' },
  ];
  expect(await service.handlers.score({ model: 'tiny', rows })).toEqual([
    { logprob: -0, tokenLogprobs: [-0, -Number.MAX_VALUE], ids: [0, 1], greedy: true },
    { logprob: -1, tokenLogprobs: [-1, -Number.MAX_VALUE], ids: [1, 1], greedy: false },
  ]);
});

describe('routing', () => {
  const rows = [
    { text: 'one', source: 'math' },
    { text: 'two', source: 'code' },
    { text: 'three', source: 'math' },
  ];

  test('gives shares per source and what experts say of it', async () => {
    resolved.trained = trained('pesc');
    engines.answers.route = (_model, _path, given, groups) => {
      expect(given.map(({ group }) => group)).toEqual([0, 1, 0]);
      expect(groups).toBe(2);
      return Promise.resolve({
        layers: 1,
        experts: 2,
        groups: 2,
        first: Float64Array.of(10, 0, 0, 5),
        second: Float64Array.of(0, 10, 5, 0),
        any: Float64Array.of(10, 0, 0, 5),
        tokens: Float64Array.of(10, 5),
      });
    };
    const result = await service.handlers.route({ model: 'run:first', rows });
    expect(result).toMatchObject({
      layers: 1,
      experts: 2,
      sources: [
        { source: 'math', tokens: 10, first: [1, 0], second: [0, 1] },
        { source: 'code', tokens: 5, first: [0, 1], second: [1, 0] },
      ],
    });
    expect(result.mutualInformation).toBeCloseTo(Math.log(2), 12);
  });

  test('of tokens asks the engine with the conversation or the text alone', async () => {
    resolved.trained = trained('pesc');
    const asked: unknown[] = [];
    engines.answers.routeTokens = (_model, of) => {
      asked.push(of);
      return Promise.resolve({ layers: 1, experts: 2, topK: 1, tokens: [], chosen: [], weights: [] });
    };
    await service.handlers.routeTokens({ model: 'run:first', of: { text: 'one' }, template: 'auto' });
    await service.handlers.routeTokens({ model: 'run:first', of: { messages: ask }, template: 'auto' });
    expect(asked).toMatchObject([
      { text: 'one', tokenizerPath: '/m/tokenizer.json' },
      { messages: ask, template: 'model', tokenizerPath: '/m/tokenizer.json' },
    ]);
    resolved.trained = null;
    await expect(
      service.handlers.routeTokens({
        model: 'tiny',
        of: { text: 'one' },
        template: 'auto',
      }) as Promise<unknown>,
    ).rejects.toMatchObject({ code: 'bad_option', place: { field: 'model' } });
  });

  test.each([null, 'lora'] as const)('is refused where there are no experts: %s', async (method) => {
    resolved.trained = method && trained(method);
    await expect((async () => service.handlers.route({ model: 'x', rows }))()).rejects.toMatchObject({
      code: 'bad_option',
      place: { field: 'model' },
    });
  });
});
