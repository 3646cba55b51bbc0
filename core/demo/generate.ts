import { codeFamilies } from './code/codeFamilies.ts';
import { languageFamilies } from './general/languageFamilies.ts';
import { listFamilies } from './general/listFamilies.ts';
import { readingFamilies } from './general/readingFamilies.ts';
import { mathFamilies } from './math/mathFamilies.ts';
import { equationsOf, pickFamily } from './problem.ts';
import type { FamilyEntry, Kind, Problem } from './problem.ts';
import { Random, textHash } from './random.ts';

export { checkAnswer } from './checkAnswer.ts';
export type { Kind, Problem } from './problem.ts';

/** One instruction row: a problem, with the system prompt it is asked under. */
export interface Row extends Problem {
  /** Only some `general` rows have one. */
  system?: string;
}

/** Which side of the split a row is drawn from. */
export type Split = 'train' | 'heldout';

/** The families of each kind. */
export const families: Readonly<Record<Kind, readonly FamilyEntry[]>> = {
  general: [...listFamilies, ...readingFamilies, ...languageFamilies],
  code: codeFamilies,
  math: mathFamilies,
};

const kindStreams: Readonly<Record<Kind, number>> = { general: 1, code: 2, math: 3 };

/** One row of this many belongs to the held-out side. */
const heldoutShare = 16;

/** Share of rows drawn in their harder form. */
const hardShare = 0.5;

/** Share of programs that are given without a word around them. */
const unexplainedShare = 0.75;

const systemPrompts: readonly string[] = [
  'You are an AI assistant. Answer in a whole sentence.',
  'You are a helpful assistant who gives every answer in whole sentences.',
  'You are a polite teacher. Say what your answer is the answer to.',
  'You help people with small tasks. Name what was asked for, and then give it.',
  'You are an AI assistant that follows instructions very well and speaks in whole sentences.',
];

const terseSystemPrompts: readonly string[] = [
  'You are an assistant of few words. Give only the answer, with no explanation.',
  'Answer as briefly as you can. Do not explain.',
];

/**
 * The side a problem belongs to, by the hash of what it is about (its group): the same problem in other words, or
 * with another number unknown, is on the same side. So no draw of one side can hold a problem of the other.
 */
export function splitOf(problem: Problem): Split {
  return textHash(`${problem.kind}\n${problem.group ?? problem.question}`) % heldoutShare === 0
    ? 'heldout'
    : 'train';
}

/** What two rows may not share within one drawn set: the whole prompt, blanks and case made equal. */
export function contentKey(row: Row): string {
  return `${row.system ?? ''}\n${row.question}`.toLowerCase().replace(/\s+/g, ' ');
}

/**
 * The row at one position of an endless sequence; a pure function of its arguments.
 * @param seed - an integer of at most 53 bits
 * @param index - position from 0
 */
export function generateRow(kind: Kind, split: Split, seed: number, index: number): Row {
  const random = new Random(seed, kindStreams[kind] * 2 + (split === 'train' ? 0 : 1), index);
  for (;;) {
    const family = pickFamily(random, families[kind]);
    const problem = family.draw(random, random.chance(hardShare));
    if (splitOf(problem) !== split) continue;
    if (kind === 'general') return withSystemPrompt(random, problem);
    if (kind === 'math') return { ...problem, answer: workedAnswer(problem) };
    return codeAnswer(problem, random.chance(unexplainedShare));
  }
}

/**
 * `count` different rows of one kind and side.
 * @throws RangeError where the families cannot give that many different rows
 */
export function generateRows(kind: Kind, split: Split, seed: number, count: number): Row[] {
  return differentRows((index) => generateRow(kind, split, seed, index), count);
}

/**
 * The first `count` rows of a sequence that differ in their whole prompt.
 * @throws RangeError where twenty times as many draws do not hold them
 */
export function differentRows(draw: (index: number) => Row, count: number): Row[] {
  const rows: Row[] = [];
  const seen = new Set<string>();
  for (let index = 0; rows.length < count; index++) {
    if (index > count * 20 + 1000) {
      throw new RangeError(
        `only ${rows.length} different rows came out of ${index} draws; ask for fewer than ${count}`,
      );
    }
    const row = draw(index);
    const key = contentKey(row);
    if (seen.has(key)) continue;
    seen.add(key);
    rows.push(row);
  }
  return rows;
}

/** A whole sentence where a system prompt asks for it; else the answer alone. */
function withSystemPrompt(random: Random, problem: Problem): Row {
  const roll = random.int(0, 99);
  if (roll < 50) return { ...problem, answer: problem.brief };
  if (roll < 70) return { ...problem, system: random.pick(systemPrompts), answer: closingSentence(problem) };
  return { ...problem, system: random.pick(terseSystemPrompts), answer: problem.brief };
}

/** The last sentence of a solution, as "The sorted list is: ant, bee"; the whole solution where it ends in several lines. */
function closingSentence({ answer, brief }: Problem): string {
  if (brief.includes('\n') || !answer.endsWith(brief)) return answer;
  const lead = answer.slice(0, answer.length - brief.length);
  return answer.slice(/[^\n]*$/.exec(lead)!.index).replace(/^.*\. (?=[A-Z][^.]*$)/, '');
}

/** The equations of the whole solution, one on each line, then the answer: what so small a model can learn to say rightly. */
function workedAnswer(problem: Problem): string {
  return `${equationsOf(problem).join('\n')}\nThe answer is: ${problem.brief}`;
}

/** What a program prints or returns is told alone; programs may be explained after they are given. */
function codeAnswer(problem: Problem, unexplained: boolean): Problem {
  const { brief, check, language = '' } = problem;
  if (check.by !== 'code') return { ...problem, answer: brief };
  return unexplained ? { ...problem, answer: `\`\`\`${language}\n${brief}\n\`\`\`` } : problem;
}
