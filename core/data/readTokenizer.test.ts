import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Addon } from '../engine/AddonTypes.ts';
import { readTokenizer as readWith } from './readTokenizer.ts';

/** Folders need no addon. */
const readTokenizer = ({ dir }: { dir: string }) =>
  readWith({ dir }, () => {
    throw new Error('loaded the addon');
  });

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tokenizer-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const write = (name: string, value: unknown) =>
  writeFileSync(join(dir, name), typeof value === 'string' ? value : JSON.stringify(value));
const tokens = {
  added_tokens: [
    { id: 5, content: '<s>', special: true },
    { id: 6, content: '</s>', special: true },
    { id: 7, content: '<|end|>', special: true },
    { id: 8, content: '<tool>', special: false },
  ],
};

test('reads the embedded model', async () => {
  const base = fileURLToPath(new URL('../../demo/base', import.meta.url));
  const { tokens: found, stopIds } = await readTokenizer({ dir: base });
  expect(found).toMatchObject({
    bos: '<|bos|>',
    eos: '<|eos|>',
    specials: ['<|bos|>', '<|eos|>', '<|pad|>'],
  });
  expect(found.chatTemplate).toContain('### Human:');
  expect(stopIds).toEqual([1]);
});

test('a folder with nothing but tokenizer.json', async () => {
  write('tokenizer.json', tokens);
  expect(await readTokenizer({ dir })).toEqual({
    tokens: { bos: null, eos: null, specials: ['<s>', '</s>', '<|end|>'], chatTemplate: null },
    stopIds: [],
  });
});

test('takes every stop id, and tokens from config.json where tokenizer_config.json is absent', async () => {
  write('tokenizer.json', tokens);
  write('config.json', { bos_token_id: 5, eos_token_id: 6 });
  write('generation_config.json', { eos_token_id: [7, 6] });
  expect(await readTokenizer({ dir })).toMatchObject({
    tokens: { bos: '<s>', eos: '</s>' },
    stopIds: [7, 6],
  });
});

test('a tokenizer without BOS has none, whatever config.json says', async () => {
  write('tokenizer.json', tokens);
  write('tokenizer_config.json', { bos_token: null, eos_token: { content: '<|end|>' } });
  write('config.json', { bos_token_id: 5, eos_token_id: 6 });
  write('chat_template.jinja', '{{ messages }}');
  expect(await readTokenizer({ dir })).toMatchObject({
    tokens: { bos: null, eos: '<|end|>', chatTemplate: '{{ messages }}' },
    stopIds: [6, 7],
  });
});

test.each([
  ['{', 'not valid JSON'],
  [{ bos_token: 3 }, 'nvalid'],
])('names a tokenizer_config.json that is malformed: %j', async (content, message) => {
  write('tokenizer.json', tokens);
  write('tokenizer_config.json', content);
  await expect(readTokenizer({ dir })).rejects.toMatchObject({
    code: 'tokenizer_invalid',
    message: expect.stringContaining(message),
    place: { file: join(dir, 'tokenizer_config.json') },
  });
});

test('names a folder without tokenizer.json', async () => {
  await expect(readTokenizer({ dir })).rejects.toMatchObject({ code: 'not_found' });
});

test("takes a GGUF file's from the addon", async () => {
  const tokens = { bos: null, eos: '</s>', specials: ['</s>'], chatTemplate: '{{ messages }}' };
  const inspectGgufTokenizer = (path: string) =>
    Promise.resolve({ ...tokens, stopIds: Int32Array.of(path === '/m/Model.GGUF' ? 2 : 0) });
  expect(
    await readWith({ dir: '/m/Model.GGUF' }, () => ({ inspectGgufTokenizer }) as Partial<Addon> as Addon),
  ).toEqual({ tokens, stopIds: [2] });
});
