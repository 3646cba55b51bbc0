import { readFileSync } from 'node:fs';
import { Template } from '@huggingface/jinja';
import { describe, expect, it } from 'vitest';
import { generateRow } from '../generate.ts';
import { pretrainDocument } from '../pretrainText.ts';
import { byteCharacters, preTokenise } from './byteLevel.ts';
import { bytePairEncoder } from './bytePairEncoder.ts';
import type { TokenizerFile } from './bytePairEncoder.ts';
import { trainBytePairs } from './bytePairTraining.ts';

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'));
const file = read('../../../demo/base/tokenizer.json') as TokenizerFile & {
  added_tokens: { id: number; content: string }[];
};
const config = read('../../../demo/base/tokenizer_config.json') as Record<string, string>;
const model = read('../../../demo/base/config.json') as Record<string, number>;
const encode = bytePairEncoder(file);

const tokenOf = new Map(Object.entries(file.model.vocab).map(([token, id]) => [id, token]));
const byteOf = new Map(byteCharacters.map((character, byte) => [character, byte]));
const decode = (ids: readonly number[]): string =>
  new TextDecoder('utf-8', { ignoreBOM: true }).decode(
    Uint8Array.from(ids.flatMap((id) => [...tokenOf.get(id)!].map((character) => byteOf.get(character)!))),
  );

describe('the committed tokenizer', () => {
  it('has 4,096 ids without gaps: special tokens, every byte, one for each merge', () => {
    const ids = Object.values(file.model.vocab).sort((a, b) => a - b);
    expect(ids).toEqual(Array.from({ length: 4096 }, (_, id) => id));
    expect(model.vocab_size).toBe(4096);
    expect(file.added_tokens.map(({ id, content }) => [id, content])).toEqual([
      [0, '<|bos|>'],
      [1, '<|eos|>'],
      [2, '<|pad|>'],
    ]);
    for (const character of byteCharacters) expect(file.model.vocab[character]).toBeGreaterThan(2);
    for (const [left, right] of file.model.merges) {
      expect(file.model.vocab[left]).toBeDefined();
      expect(file.model.vocab[right]).toBeDefined();
      expect(file.model.vocab[left + right]).toBeDefined();
    }
  });

  it("gives the ids that Hugging Face's tokenizers 0.23 recorded", () => {
    const recorded = read('./recordedIds.json') as { text: string; ids: number[] }[];
    expect(recorded.length).toBeGreaterThan(30);
    for (const { text, ids } of recorded) expect(encode(text), text).toEqual(ids);
  });

  it('decodes to the text it was given, of the demo or not', () => {
    const foreign = ['', ' ', 'héllo wörld', '数学 3×4', '🇫🇷👩‍👧', '\u0000\u0085\ufeff\r\n', 'x'.repeat(300)];
    const texts = [...foreign, ...Array.from({ length: 300 }, (_, i) => pretrainDocument(77, i))];
    for (const text of texts) expect(decode(encode(text))).toBe(text);
  });

  it("writes numbers digit by digit and the demo's text with over 2.5 bytes a token", () => {
    expect(encode('407')).toHaveLength(3);
    expect(encode('a 40')).toEqual([...encode('a '), ...encode('4'), ...encode('0')]);
    let bytes = 0;
    let tokens = 0;
    for (let i = 0; i < 300; i++) {
      const text = pretrainDocument(78, i);
      bytes += text.length;
      tokens += encode(text).length;
    }
    expect(bytes / tokens).toBeGreaterThan(2.5);
  });

  it('tokenises a prompt and its answer apart as it does together', () => {
    for (const kind of ['general', 'code', 'math'] as const) {
      for (let i = 0; i < 100; i++) {
        const row = generateRow(kind, 'train', 79, i);
        const prompt = `### Human:\n${row.question}\n### Assistant:\n`;
        expect([...encode(prompt), ...encode(row.answer)]).toEqual(encode(prompt + row.answer));
      }
    }
  });

  it('carries the Camelidae prompt as its chat template', () => {
    const render = (messages: { role: string; content: string }[], generate: boolean): string =>
      new Template(config.chat_template!).render({
        messages,
        bos_token: config.bos_token,
        eos_token: config.eos_token,
        add_generation_prompt: generate,
      });
    const turns = [
      { role: 'system', content: 'S' },
      { role: 'user', content: 'Q1' },
      { role: 'assistant', content: 'A1' },
      { role: 'user', content: 'Q2' },
    ];
    expect(render(turns, true)).toBe(
      '<|bos|>### System:\nS\n### Human:\nQ1\n### Assistant:\nA1<|eos|>### Human:\nQ2\n### Assistant:\n',
    );
    expect(render(turns.slice(1, 3), false)).toBe('<|bos|>### Human:\nQ1\n### Assistant:\nA1<|eos|>');
  });
});

describe('trainBytePairs', () => {
  it('joins the most frequent pair first, and of equal ones the lower ids', () => {
    const alphabet = ['a', 'b', 'c', 'd'];
    const { tokens, merges } = trainBytePairs(
      new Map([
        ['abab', 5],
        ['cd', 10],
        ['abd', 1],
      ]),
      alphabet,
      7,
    );
    expect(merges).toEqual([
      ['a', 'b'],
      ['c', 'd'],
      ['ab', 'ab'],
    ]);
    expect(tokens).toEqual(['a', 'b', 'c', 'd', 'ab', 'cd', 'abab']);
  });

  it('stops where no pair occurs twice, and handles runs of one letter', () => {
    expect(trainBytePairs(new Map([['ab', 1]]), ['a', 'b'], 10).merges).toEqual([]);
    const { merges } = trainBytePairs(new Map([['aaaaa', 2]]), ['a'], 3);
    expect(merges).toEqual([
      ['a', 'a'],
      ['aa', 'a'],
    ]);
  });

  it('refuses a word outside its alphabet', () => {
    expect(() => trainBytePairs(new Map([['xz', 3]]), ['x'], 4)).toThrow('"z", which the alphabet lacks');
  });

  it('makes the same merges whatever the order of the words', () => {
    const words = Array.from({ length: 400 }, (_, i) => preTokenise(pretrainDocument(80, i))).flat();
    const counted = (list: readonly string[]): Map<string, number> => {
      const counts = new Map<string, number>();
      for (const word of list) counts.set(word, (counts.get(word) ?? 0) + 1);
      return counts;
    };
    const alphabet = byteCharacters.slice().sort();
    const forward = trainBytePairs(counted(words), alphabet, 600);
    const backward = trainBytePairs(counted(words.slice().reverse()), alphabet, 600);
    expect(backward.merges).toEqual(forward.merges);
    expect(forward.merges).toHaveLength(600 - 256);
  });
});
