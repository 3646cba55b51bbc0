import { describe, expect, it } from 'vitest';
import { families, generateRows } from './generate.ts';
import { pretrainDocument } from './pretrainText.ts';

const documents = Array.from({ length: 6000 }, (_, index) => pretrainDocument(3, index));

describe('pretrainDocument', () => {
  it('is a pure function of seed and index', () => {
    for (const index of [5999, 17, 0, 3141]) expect(pretrainDocument(3, index)).toBe(documents[index]);
    expect(pretrainDocument(4, 0)).not.toBe(documents[0]);
    expect(pretrainDocument(3, 2 ** 40)).toBe(pretrainDocument(3, 2 ** 40));
  });

  it('gives different documents of plain ASCII text, none empty and none long', () => {
    expect(new Set(documents).size / documents.length).toBeGreaterThan(0.99);
    for (const text of documents) {
      expect(text).toMatch(/^[\n\x20-\x7e]+$/);
      expect(text).toBe(text.trim());
      expect(text).not.toMatch(/undefined|NaN|\[object/);
      expect(text.length).toBeLessThan(2000);
    }
  });

  it('shows the prompt template in about two documents of nine, with terse answers', () => {
    const templated = documents.filter((text) => text.includes('### Human:\n'));
    expect(templated.length / documents.length).toBeGreaterThan(0.2);
    expect(templated.length / documents.length).toBeLessThan(0.24);
    for (const text of templated) {
      expect(text).toMatch(/^(### System:\n.*\n)?### Human:\n[\s\S]+\n### Assistant:\n[\s\S]+$/);
      expect(text).not.toContain('The answer is');
    }
  });

  it('never asks a held-out question', () => {
    const held = new Set(
      (['general', 'code', 'math'] as const).flatMap((kind) =>
        generateRows(kind, 'heldout', 9, 2000).map((row) => row.question),
      ),
    );
    const asked = documents.flatMap((text) =>
      [
        ...text.matchAll(
          /(?:^|\n)(?:Q: |Question: |Task: |### Human:\n)([\s\S]*?)\n(?:A: |Answer: |Result: |### Assistant:\n)/g,
        ),
      ].map((match) => match[1]!),
    );
    expect(asked.length).toBeGreaterThan(3000);
    for (const question of asked) expect(held.has(question), question).toBe(false);
  });

  it('leaves the families of fine-tuning out', () => {
    const left = Object.values(families)
      .flat()
      .filter((family) => !family.inPretraining);
    expect(left.length).toBeGreaterThan(4);
    const all = documents.join('\n');
    expect(all).not.toMatch(
      /odd one out|does not belong with|a numbered list|Make a card|unknown variable|Translate this/,
    );
  });

  it('writes only true equations', () => {
    let checked = 0;
    for (const text of documents) {
      for (const [equation, a, op, b, result] of text.matchAll(
        /(?<![-+*/=] |[\d)] )\b(\d+) ([-+*/]) (\d+) = (\d+)\b(?! [-+*/])/g,
      )) {
        const [left, right] = [Number(a), Number(b)];
        const value = { '+': left + right, '-': left - right, '*': left * right, '/': left / right }[
          op as '+'
        ];
        expect(value, `${equation} in ${text}`).toBe(Number(result));
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(3000);
  });
});
