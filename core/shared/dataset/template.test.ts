import { Template } from '@huggingface/jinja';
import { describe, expect, test } from 'vitest';
import type { Message } from './source.ts';
import { renderCamelidae, renderModelTemplate, type TemplateTokens } from './template.ts';

const chatml = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;
const tokens: TemplateTokens = {
  bos: '<s>',
  eos: '</s>',
  specials: ['<s>', '</s>', '<|im_start|>', '<|im_end|>'],
  chatTemplate: chatml,
};
const render = (template: string, context: Record<string, unknown>) => new Template(template).render(context);
const conversation: Message[] = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: 'Hi </s>' },
  { role: 'assistant', content: 'Hello <|im_end|>' },
];
const special = (token: string, target = false) => ({ kind: 'special', token, target });
const text = (value: string, target = false) => ({ kind: 'text', text: value, target });

describe('Camelidae', () => {
  test('one BOS, blocks, answer and its EOS as targets; spelled specials stay text', () => {
    expect(renderCamelidae(conversation, tokens)).toEqual([
      special('<s>'),
      text('### System:\nBe kind.\n### Human:\nHi </s>\n### Assistant:\n'),
      text('Hello <|im_end|>', true),
      special('</s>', true),
    ]);
  });
  test('no BOS where the tokenizer has none; muted answers are context; a prompt ends where the answer begins', () => {
    const messages: Message[] = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b', train: false },
      { role: 'user', content: 'c' },
    ];
    expect(renderCamelidae(messages, { ...tokens, bos: null })).toEqual([
      text('### Human:\na\n### Assistant:\n'),
      text('b'),
      special('</s>'),
      text('### Human:\nc\n### Assistant:\n'),
    ]);
  });
  test('a tokenizer without EOS is refused', () => {
    expect(() => renderCamelidae(conversation, { ...tokens, eos: null })).toThrowError(/EOS/);
  });
});

describe("the model's own template", () => {
  test('gives the text that plain rendering gives, specials apart', () => {
    const plain: Message[] = [
      { role: 'user', content: 'two words' },
      { role: 'assistant', content: ' kept spaces ' },
    ];
    const pieces = renderModelTemplate(plain, tokens, render);
    const joined = pieces.map((piece) => (piece.kind === 'text' ? piece.text : piece.token)).join('');
    expect(joined).toBe(render(chatml, { messages: plain, add_generation_prompt: false }));
    expect(pieces.filter((piece) => piece.target)).toEqual([
      text(' kept spaces ', true),
      special('<|im_end|>', true),
    ]);
  });
  test('spelled specials of a message stay text', () => {
    const pieces = renderModelTemplate(conversation, tokens, render);
    expect(pieces.filter((piece) => piece.kind === 'special').map((piece) => piece.token)).toEqual([
      '<|im_start|>',
      '<|im_end|>',
      '<|im_start|>',
      '<|im_end|>',
      '<|im_start|>',
      '<|im_end|>',
    ]);
    expect(pieces).toContainEqual(text('user\nHi </s>'));
    expect(pieces).toContainEqual(text('Hello <|im_end|>', true));
  });
  test('a generation prompt follows a last question', () => {
    expect(renderModelTemplate([{ role: 'user', content: 'q' }], tokens, render).slice(-2)).toEqual([
      special('<|im_start|>'),
      text('assistant\n'),
    ]);
  });
  test('a template that trims has its messages trimmed', () => {
    const trimming = {
      ...tokens,
      chatTemplate: "{{ '<s>' }}{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}",
    };
    expect(renderModelTemplate([{ role: 'user', content: '  q ' }], trimming, render)).toEqual([
      special('<s>'),
      text('[q]'),
    ]);
  });
  test('a template that raises, or none, is refused by name', () => {
    const raising = { ...tokens, chatTemplate: "{{ raise_exception('no system role') }}" };
    expect(() => renderModelTemplate(conversation, raising, render)).toThrowError(/no system role/);
    expect(() => renderModelTemplate(conversation, { ...tokens, chatTemplate: null }, render)).toThrowError(
      /no chat template/,
    );
  });
});
