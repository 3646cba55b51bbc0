import type { Random } from './random.ts';

/** The three kinds of instruction rows: general ones (as SlimOrca), programs (Magicoder), word problems (MetaMathQA). */
export type Kind = 'general' | 'code' | 'math';

/** Programming languages of the demo's small programs. */
export type Language = 'python' | 'javascript';

/** Where a word problem comes from, with MetaMathQA's own names for it. */
export type MathType = 'GSM_AnsAug' | 'GSM_Rephrased' | 'GSM_FOBAR' | 'GSM_SV';

/**
 * How an answer is scored. `number`: the number after the last "answer is", else the last one.
 * `ending`: the last line is the value, or ends with it after a colon or "is"/"are". `block`: the text ends with these lines.
 * `output`: a fenced block, else the text, is what a program prints. `code`: a fenced block, else the text, is one
 * of the accepted programs.
 */
export type Check =
  | { by: 'number'; value: number }
  | { by: 'ending'; value: string }
  | { by: 'block'; value: string }
  | { by: 'output'; value: string }
  | { by: 'code'; accepted: readonly string[] };

/** One solved problem, from which rows and pre-training documents are rendered. */
export interface Problem {
  kind: Kind;
  /** Name of the family that made it, e.g. `sort-words`. */
  task: string;
  /** One step, small numbers, short lists: what the base model is expected to master. */
  easy: boolean;
  question: string;
  /** What must not be shared between training and held-out rows; the question where it is absent. */
  group?: string;
  /** The answer alone, as short as it can be said. */
  brief: string;
  /** Reasoning in whole sentences, then the answer: the style that fine-tuning teaches. */
  answer: string;
  check: Check;
  /** Only for `code`. */
  language?: Language;
  /** Only for `math`. */
  type?: MathType;
  originalQuestion?: string;
}

/** Draws one problem of a family; `hard` asks for more steps, larger numbers or longer lists. */
export type Family = (random: Random, hard: boolean) => Problem;

/** A family with its share within its kind, and whether pre-training text shows it too. */
export interface FamilyEntry {
  task: string;
  weight: number;
  /** False for what only instruction rows show, so that fine-tuning has something new to teach. */
  inPretraining: boolean;
  draw: Family;
}

/** One family of the table, drawn by weight. */
export function pickFamily(random: Random, table: readonly FamilyEntry[]): FamilyEntry {
  let total = 0;
  for (const entry of table) total += entry.weight;
  let left = random.int(0, total - 1);
  for (const entry of table) {
    left -= entry.weight;
    if (left < 0) return entry;
  }
  throw new RangeError('the table of families is empty');
}

/** Equations of a worked answer, in the order in which they stand there. */
export function equationsOf(problem: Problem): string[] {
  return problem.answer.match(/\d+ [-+*/] \d+ = \d+/g) ?? [];
}
