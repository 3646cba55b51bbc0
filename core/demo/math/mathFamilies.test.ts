import { describe, expect, it } from 'vitest';
import { generateRows } from '../generate.ts';
import type { Row } from '../generate.ts';

const rows = [...generateRows('math', 'train', 21, 2500), ...generateRows('math', 'heldout', 22, 400)];

/** What a sentence with a number does to the value, told by its words: a reading of its own, apart from the maker's. */
const readings: readonly [RegExp, (value: number, n: number) => number][] = [
  [/among \d+ friends|into \d+ bags/, (value, n) => value / n],
  [/times as (many|large)/, (value, n) => value * n],
  [
    /in each|Each of the|each of them|Every one|buys \d+ of them|At this price|for \d+ days/,
    (value, n) => value * n,
  ],
  [/had \d+ coins before|coins in (her|his) purse|^The whole|^In all, the/, (value, n) => n - value],
  [
    /gets \d+ of them from|gives \d+ \w+ to|loses|get lost|sells \d|get off|\d (guests |of them )?leave\.|get out|younger|less\b|takes out|given away|stay at home|keeps/,
    (value, n) => value - n,
  ],
  [
    /more|another|Another|receives|get on|come on board|get in\b|older|ahead|pass\.|loose|bus ticket/,
    (value, n) => value + n,
  ],
];

/** Solves a forward story from its text alone. */
function solveText(question: string): number {
  const sentences = question.match(/[^.?]+[.?]/g)!.map((sentence) => sentence.trim());
  let value = Number(/\d+/.exec(sentences[0]!)![0]);
  for (const sentence of sentences.slice(1)) {
    const number = /\d+/.exec(sentence);
    if (number === null) continue;
    const reading = readings.find(([words]) => words.test(sentence));
    if (reading === undefined) throw new Error(`no reading for: ${sentence}`);
    value = reading[1](value, Number(number[0]));
  }
  return value;
}

/** Solves a comparison of two people. */
function solveComparison(question: string): number {
  const [start = 0, k = 0] = (question.match(/\d+/g) ?? []).map(Number);
  const other = /times as many|For every one/.test(question)
    ? start * k
    : /fewer|gave away/.test(question)
      ? start - k
      : start + k;
  return /together|the two have in all/.test(question) ? start + other : other;
}

function solveForward(task: string, question: string): number {
  if (task === 'compare') return solveComparison(question);
  if (task !== 'expression') return solveText(question);
  const expression = /[(\d][-+*() \d]*\d/.exec(question)![0];
  return Number(new Function(`return ${expression.replace(/[^\d]*$/, '')}`)());
}

const valueOf = (row: Row): number => (row.check.by === 'number' ? row.check.value : NaN);

describe('word problems', () => {
  it('have the answer that a separate reading of their text gives', () => {
    let checked = 0;
    for (const row of rows) {
      if (row.type !== 'GSM_AnsAug' && row.type !== 'GSM_Rephrased') continue;
      expect(solveForward(row.task, row.question), row.question).toBe(valueOf(row));
      expect(solveForward(row.task, row.originalQuestion!), row.originalQuestion).toBe(valueOf(row));
      checked++;
    }
    expect(checked).toBeGreaterThan(2000);
  });

  it('with an unknown number give the original back when the answer is put in', () => {
    let checked = 0;
    for (const row of rows) {
      if (row.type !== 'GSM_FOBAR' && row.type !== 'GSM_SV') continue;
      const filled = row.question.replace(/\bx\b/, String(valueOf(row)));
      const story = row.originalQuestion!.slice(0, row.originalQuestion!.lastIndexOf('. ') + 1);
      expect(filled.startsWith(row.type === 'GSM_FOBAR' ? row.originalQuestion! : story), row.question).toBe(
        true,
      );
      const told =
        row.type === 'GSM_FOBAR'
          ? /above question is (\d+)/.exec(filled)!
          : /(\d+)/.exec(filled.slice(story.length))!;
      expect(solveText(row.originalQuestion!), row.question).toBe(Number(told[1]));
      checked++;
    }
    expect(checked).toBeGreaterThan(200);
  });

  it('reason in true equations, of which the last gives the answer', () => {
    for (const row of rows) {
      const equations = [...row.answer.matchAll(/(\d+) ([-+*/]) (\d+) = (\d+)/g)];
      for (const [text, a, op, b, result] of equations) {
        const [left, right] = [Number(a), Number(b)];
        const value = { '+': left + right, '-': left - right, '*': left * right, '/': left / right }[
          op as '+'
        ];
        expect(value, text).toBe(Number(result));
      }
      expect(Number(equations[equations.length - 1]?.[4]), row.answer).toBe(valueOf(row));
      expect(row.answer.endsWith(`The answer is: ${valueOf(row)}`)).toBe(true);
    }
  });

  it('stay with small whole numbers', () => {
    for (const row of rows) {
      expect(Number.isInteger(valueOf(row)) && valueOf(row) >= 1 && valueOf(row) < 250, row.question).toBe(
        true,
      );
      for (const number of row.question.match(/\d+/g) ?? [])
        expect(Number(number), row.question).toBeLessThan(250);
    }
    const below100 = rows.filter((row) => valueOf(row) < 100).length;
    expect(below100 / rows.length).toBeGreaterThan(0.95);
  });

  it('come in all four types', () => {
    const counts = new Map<string, number>();
    for (const row of rows) counts.set(row.type!, (counts.get(row.type!) ?? 0) + 1);
    expect([...counts.keys()].sort()).toEqual(['GSM_AnsAug', 'GSM_FOBAR', 'GSM_Rephrased', 'GSM_SV']);
    for (const count of counts.values()) expect(count).toBeGreaterThan(100);
  });
});
