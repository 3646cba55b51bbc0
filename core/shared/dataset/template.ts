/**
 * Prompt templates: conversation -> pieces that a tokenizer turns into ids. Text of users and rows is only ever a
 * `text` piece, and those are encoded without looking for special tokens: so nothing a row says becomes one.
 */
import { CaravanError } from '../contract/errors.ts';
import type { Message } from './source.ts';

export type TemplatePiece =
  /** Encoded as plain text. Neighbouring texts of equal `target` are encoded together. */
  | { kind: 'text'; text: string; target: boolean }
  /** One special token, by its spelling in the tokenizer. */
  | { kind: 'special'; token: string; target: boolean };

/** What a template needs to know of a tokenizer. */
export interface TemplateTokens {
  bos: string | null;
  eos: string | null;
  /** Every special token's spelling. */
  specials: readonly string[];
  /** Jinja source, when the model brings one. */
  chatTemplate: string | null;
}

/** Renders a Jinja chat template; injected, so that this folder needs no library. */
export type RenderJinja = (template: string, context: Record<string, unknown>) => string;

/**
 * The Camelidae prompt (design, section 2): one BOS, an optional system block, and for each turn
 * `### Human:\n{q}\n### Assistant:\n{a}` with EOS after each answer. Every token of a trained answer and its EOS are
 * targets. With a last user turn the prompt ends where the answer begins.
 * @throws `template_failed` where the tokenizer has no EOS.
 */
export function renderCamelidae(messages: readonly Message[], tokens: TemplateTokens): TemplatePiece[] {
  if (tokens.eos === null)
    throw new CaravanError(
      'template_failed',
      'the Camelidae template ends answers with EOS, which this tokenizer lacks',
      {
        place: { file: 'tokenizer_config.json', field: 'eos_token' },
        mend: 'Add eos_token to tokenizer_config.json, or use template: model.',
      },
    );
  const pieces: TemplatePiece[] = [];
  if (tokens.bos !== null) pieces.push({ kind: 'special', token: tokens.bos, target: false });
  let prompt = '';
  for (const message of messages) {
    if (message.role === 'system') {
      if (message.content !== '') prompt += `### System:\n${message.content}\n`;
    } else if (message.role === 'user') {
      prompt += `### Human:\n${message.content}\n### Assistant:\n`;
    } else {
      const target = message.train !== false;
      pieces.push({ kind: 'text', text: prompt, target: false });
      pieces.push({ kind: 'text', text: message.content, target });
      pieces.push({ kind: 'special', token: tokens.eos, target });
      prompt = '';
    }
  }
  if (prompt !== '') pieces.push({ kind: 'text', text: prompt, target: false });
  return pieces;
}

/**
 * The model's own Jinja template. It is rendered with a marker in the place of every message, then cut at markers and
 * special tokens; so only the template's own text can produce special tokens. The special token that follows an
 * assistant's message (its end of turn) is a target with it.
 * @throws `template_failed` where there is no template, or it raises.
 */
export function renderModelTemplate(
  messages: readonly Message[],
  tokens: TemplateTokens,
  render: RenderJinja,
): TemplatePiece[] {
  if (tokens.chatTemplate === null)
    throw new CaravanError('template_failed', 'the model brings no chat template', {
      mend: 'Use template: camelidae, or add chat_template to tokenizer_config.json.',
    });
  const marker = (index: number, edge: 'a' | 'z') => `\u{F0000}${index}${edge}\u{F0001}`;
  let text: string;
  try {
    text = render(tokens.chatTemplate, {
      messages: messages.map((message, index) => ({
        role: message.role,
        // The spaces outside show whether the template trims a message.
        content: ` ${marker(index, 'a')}${marker(index, 'z')} `,
      })),
      add_generation_prompt: messages.at(-1)?.role === 'user',
      bos_token: tokens.bos ?? '',
      eos_token: tokens.eos ?? '',
    });
  } catch (error) {
    throw new CaravanError(
      'template_failed',
      `the model's chat template refused these messages: ${(error as Error).message}`,
      {
        mend: 'Check the order of roles, or use template: camelidae.',
      },
    );
  }
  const specials = [...tokens.specials].filter((token) => token !== '').sort((a, b) => b.length - a.length);
  const pieces: TemplatePiece[] = [];
  let endsAnswer = false;
  const literal = (rest: string) => {
    while (rest !== '') {
      let at = rest.length;
      let found: string | null = null;
      for (const special of specials) {
        const index = rest.indexOf(special);
        if (index >= 0 && index < at) [at, found] = [index, special];
      }
      if (at > 0) pieces.push({ kind: 'text', text: rest.slice(0, at), target: false });
      if (found === null) return;
      pieces.push({ kind: 'special', token: found, target: endsAnswer });
      endsAnswer = false;
      rest = rest.slice(at + found.length);
    }
  };
  let rest = text;
  for (;;) {
    const next = /( ?)\u{F0000}(\d+)a\u{F0001}\u{F0000}\2z\u{F0001}( ?)/u.exec(rest);
    if (!next) break;
    const [whole, before, index, after] = next;
    literal(rest.slice(0, next.index));
    const message = messages[Number(index)]!;
    let content = message.content;
    if (before === '') content = content.trimStart();
    if (after === '') content = content.trimEnd();
    const target = message.role === 'assistant' && message.train !== false;
    if (content !== '') pieces.push({ kind: 'text', text: content, target });
    endsAnswer = target;
    rest = rest.slice(next.index + whole.length);
  }
  literal(rest);
  return mergeTexts(pieces);
}

/** Joins neighbouring texts, so that a tokenizer sees them as the template's author did. */
function mergeTexts(pieces: TemplatePiece[]): TemplatePiece[] {
  const merged: TemplatePiece[] = [];
  for (const piece of pieces) {
    const last = merged.at(-1);
    if (piece.kind === 'text' && last?.kind === 'text' && last.target === piece.target)
      last.text += piece.text;
    else merged.push({ ...piece });
  }
  return merged;
}

/** What a run was trained with is what its chats and exports carry. */
export function renderTemplate(
  template: 'camelidae' | 'model',
  messages: readonly Message[],
  tokens: TemplateTokens,
  render: RenderJinja,
): TemplatePiece[] {
  return template === 'camelidae'
    ? renderCamelidae(messages, tokens)
    : renderModelTemplate(messages, tokens, render);
}
