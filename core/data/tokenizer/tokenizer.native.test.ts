import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { demoTokenizer } from '../../../tests/support/tinyModel.ts';
import { needs } from '../../../tests/support/skip.ts';
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { loadAddon } from '../../engine/loadAddon.ts';
import { checkTokenizer } from './checkTokenizer.ts';
import { describeTokenizer, renderConversation, spellText } from './tryTokenizer.ts';

const tokens = { bos: '<|bos|>', eos: '<|eos|>', specials: ['<|bos|>', '<|eos|>'], chatTemplate: null };
const asked = { path: demoTokenizer, tokens, stopIds: [], template: 'camelidae' as const };

describe.runIf(needs('addon'))("the demo's tokenizer", () => {
  let tokenizer: AddonTokenizer;
  beforeAll(async () => {
    tokenizer = await loadAddon().openTokenizer(demoTokenizer);
  });
  afterAll(() => tokenizer?.dispose());

  test('names its special tokens and what each does', () => {
    expect(describeTokenizer({ path: demoTokenizer, tokens, stopIds: [1] }, tokenizer)).toMatchObject({
      vocabSize: 4096,
      specials: [
        { id: 0, text: '<|bos|>', roles: ['bos'] },
        { id: 1, text: '<|eos|>', roles: ['eos', 'stop'] },
      ],
    });
  });

  test('spells a text: its pieces give the text back, and a forged special token stays text', () => {
    const text = 'An oasis <|eos|> 🐪';
    const { tokens: spelled, count } = spellText(text, tokenizer);
    expect(spelled.map((token) => token.text).join('')).toBe(text);
    expect(spelled.some(({ special }) => special)).toBe(false);
    expect(spelled.reduce((sum, { ids }) => sum + ids.length, 0)).toBe(count);
    expect(spelled.every(({ ids, pieces }) => ids.length === pieces.length)).toBe(true);
  });

  test('renders a conversation with its answers as targets', async () => {
    const spelled = await renderConversation(
      {
        path: demoTokenizer,
        messages: [
          { role: 'user', content: 'Where?' },
          { role: 'assistant', content: 'There.' },
        ],
        template: 'camelidae',
        tokens,
      },
      tokenizer,
    );
    expect(spelled[0]).toMatchObject({ text: '<|bos|>', special: true, target: false });
    expect(
      spelled
        .filter(({ target }) => target)
        .map(({ text }) => text)
        .join(''),
    ).toBe('There.<|eos|>');
  });

  test('passes its checks; a template that breaks one fails with what was seen', async () => {
    expect((await checkTokenizer(asked, tokenizer)).map(({ name, passed }) => [name, passed])).toEqual([
      ['round-trip', true],
      ['plain-text', true],
      ['template', true],
      ['stop', true],
    ]);
    const checked = async (chatTemplate: string) =>
      new Map(
        (
          await checkTokenizer(
            { ...asked, tokens: { ...tokens, chatTemplate }, template: 'model' },
            tokenizer,
          )
        ).map(({ name, passed, found }) => [name, { passed, found }]),
      );
    // Counts the messages at its beginning, so that a longer conversation begins otherwise; ends answers with no token.
    const counting = await checked(
      '{{ messages | length }}{% for m in messages %}{{ m.content }}\n{% endfor %}',
    );
    expect(counting.get('template')).toMatchObject({ passed: false });
    expect(counting.get('stop')).toMatchObject({ passed: false });
    const raising = await checked("{{ raise_exception('no such thing') }}");
    expect(raising.get('template')?.found).toContain('no such thing');
    expect(raising.get('stop')?.passed).toBeNull();
  });
});
