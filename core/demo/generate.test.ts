import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { contentKey, differentRows, families, generateRow, generateRows, splitOf } from './generate.ts';
import { checkAnswer } from './checkAnswer.ts';
import { bytePairEncoder } from './tokenizer/bytePairEncoder.ts';
import type { TokenizerFile } from './tokenizer/bytePairEncoder.ts';

const kinds = ['general', 'code', 'math'] as const;
const trainRows = kinds.flatMap((kind) => generateRows(kind, 'train', 11, 1500));
const heldoutRows = kinds.flatMap((kind) => generateRows(kind, 'heldout', 11, 300));

describe('generateRow', () => {
  it('is a pure function of kind, split, seed and index', () => {
    for (const kind of kinds) {
      const forward = [0, 1, 2, 3].map((index) => generateRow(kind, 'train', 4, index));
      const backward = [3, 2, 1, 0].map((index) => generateRow(kind, 'train', 4, index)).reverse();
      expect(forward).toEqual(backward);
      expect(generateRow(kind, 'train', 5, 0)).not.toEqual(forward[0]);
    }
  });

  it("accepts its own tuned and its own terse answer, and no other row's", () => {
    let crossed = 0;
    trainRows.forEach((row, i) => {
      expect(checkAnswer(row, row.answer), row.question).toBe(true);
      expect(checkAnswer(row, row.brief), row.question).toBe(true);
      const other = trainRows[(i + 7) % trainRows.length]!;
      if (other.brief.toLowerCase() !== row.brief.toLowerCase() && checkAnswer(row, other.answer)) crossed++;
    });
    // A number may be met by chance ("6" against "6 apples" in another answer); more would mean a check that sleeps.
    expect(crossed / trainRows.length).toBeLessThan(0.02);
  });

  it('works word problems out line by line, and says more than the answer only where a system prompt asks', () => {
    const asked = trainRows.filter((row) => row.system?.includes('sentence'));
    expect(asked.length).toBeGreaterThan(100);
    for (const row of asked) {
      expect(row.answer, row.question).toMatch(row.brief.includes('\n') ? /:\n/ : /^[^\n]/);
      if (!row.brief.includes('\n')) expect(row.answer).not.toContain('\n');
    }
    for (const row of trainRows) {
      if (row.kind === 'math') expect(row.answer).toMatch(/^(\d+ [-+*/] \d+ = \d+\n)+The answer is: \d+$/);
      if (row.kind === 'general' && row.system === undefined) expect(row.answer).toBe(row.brief);
    }
  });

  it('draws every family, easy and hard', () => {
    for (const kind of kinds) {
      const drawn = new Set(trainRows.filter((row) => row.kind === kind).map((row) => row.task));
      expect(drawn).toEqual(new Set(families[kind].map((family) => family.task)));
      const easy = trainRows.filter((row) => row.kind === kind && row.easy).length;
      expect(easy).toBeGreaterThan(500);
      expect(easy).toBeLessThan(1000);
    }
  });
});

describe('the split', () => {
  it('holds by construction: no question and no original question is on both sides, under any seed', () => {
    const held = new Set(heldoutRows.map((row) => row.question));
    const heldOriginals = new Set(
      heldoutRows.map((row) => row.originalQuestion).filter((text) => text !== undefined),
    );
    expect(heldOriginals.size).toBeGreaterThan(200);
    for (const seed of [11, 12, 13]) {
      for (const kind of kinds) {
        for (const row of generateRows(kind, 'train', seed, 1500)) {
          expect(splitOf(row)).toBe('train');
          expect(held.has(row.question), row.question).toBe(false);
          expect(heldOriginals.has(row.originalQuestion ?? ''), row.question).toBe(false);
        }
      }
    }
    for (const row of heldoutRows) expect(splitOf(row)).toBe('heldout');
  });

  it('depends on the question alone: rows with one question are in one group', () => {
    const groups = new Map<string, string>();
    for (const row of trainRows) {
      const key = `${row.kind}\n${row.question}`;
      const group = row.group ?? row.question;
      expect(groups.get(key) ?? group).toBe(group);
      groups.set(key, group);
    }
  });
});

describe('generateRows', () => {
  it('gives different rows, varied enough that they cannot be learned by heart', () => {
    expect(new Set(trainRows.map(contentKey)).size).toBe(trainRows.length);
    const answers = new Set(trainRows.filter((row) => row.kind === 'math').map((row) => row.answer));
    expect(answers.size).toBeGreaterThan(1000);
  });

  it('ends with a sentence where there are not so many', () => {
    const draw = (index: number) => generateRow('code', 'train', 1, index % 30);
    expect(differentRows(draw, 20)).toHaveLength(20);
    expect(() => differentRows(draw, 40)).toThrow(
      /only \d+ different rows came out of 1801 draws; ask for fewer than 40/,
    );
  });

  it('writes plain English: articles fit, no blank is doubled, nothing is undefined', () => {
    for (const row of [...trainRows, ...heldoutRows]) {
      const text = `${row.system ?? ''}\n${row.question}\n${row.answer}`;
      expect(text).not.toMatch(/undefined|NaN|\[object/);
      expect(text).toMatch(/^[\n\x20-\x7e]*$/);
      const prose = text
        .replace(/```[\s\S]*?```/g, '')
        .replace(/`[^`]*`/g, 'quoted')
        .replace(/"[^"]*"/g, 'quoted');
      expect(prose).not.toMatch(/\S {2,}\S/);
      expect(prose).not.toMatch(/ (?:[,?]|\.(?!\.\.))/);
      if (row.kind !== 'code') {
        expect(prose).not.toMatch(/\b[Aa] (?:apple|egg|onion|orange|owl|eagle|engineer|instrument|animal)\b/);
        expect(prose).not.toMatch(/\b[Aa]n (?:[b-df-hj-np-tv-z]\w+)\b/);
        if (row.kind === 'math') expect(prose).not.toMatch(/\b1 [a-z]+s\b/);
      }
    }
  });

  it("keeps rows short: nearly all below 200 tokens, all below the model's 512", () => {
    const file = JSON.parse(
      readFileSync(new URL('../../demo/base/tokenizer.json', import.meta.url), 'utf8'),
    ) as TokenizerFile;
    const encode = bytePairEncoder(file);
    const lengths = trainRows.map((row) => {
      const system = row.system === undefined ? '' : `### System:\n${row.system}\n`;
      return encode(`${system}### Human:\n${row.question}\n### Assistant:\n${row.answer}`).length + 2;
    });
    lengths.sort((a, b) => a - b);
    expect(lengths[Math.floor(lengths.length * 0.9)]).toBeLessThan(200);
    expect(lengths[lengths.length - 1]).toBeLessThan(400);
  });
});
