import type { Random } from '../random.ts';

/**
 * A word problem as a chain: a first number and one to three operations on it. Every number but the result can be
 * asked for, which is how the backward forms (FOBAR, SV) are made from the same story.
 */
export interface Story {
  start: number;
  steps: readonly StoryStep[];
  /** Two or more wordings of the first sentence; `n` is the start as text, or the unknown. */
  opening: readonly ((n: string) => string)[];
  /** Two or more wordings of the closing question, with the question mark. */
  ask: readonly string[];
  /** The result as a statement, without the full stop. */
  declare: (result: number) => string;
  /** One sentence for a state of the chain, without the full stop; `sum` is a number or an equation. */
  state: (sum: string) => string;
}

/** One operation of a story. `from` means operand - value, `of` operand * value; the others value op operand. */
export interface StoryStep {
  op: '+' | '-' | '*' | '/' | 'from';
  operand: number;
  /** Wordings of the sentence that tells it, one for each wording of the opening. */
  tell: readonly ((n: string) => string)[];
  /** Begins the sentence that explains it: "After the gift". */
  lead: string;
  /** As `Story.state`, for the state after this step, where it differs. */
  state?: (sum: string) => string;
}

/** The value after one step. */
export function applyStep(value: number, step: StoryStep): number {
  switch (step.op) {
    case '+':
      return value + step.operand;
    case '-':
      return value - step.operand;
    case '*':
      return value * step.operand;
    case '/':
      return value / step.operand;
    case 'from':
      return step.operand - value;
  }
}

/** The equation of one step, as "12 + 5 = 17"; either number may be replaced by the unknown's letter. */
export function stepEquation(value: string, step: StoryStep, operand: string, result: string): string {
  return step.op === 'from'
    ? `${operand} - ${value} = ${result}`
    : `${value} ${step.op} ${operand} = ${result}`;
}

/** The values before each step and after the last one: `steps.length + 1` numbers. */
export function storyValues(story: Story): number[] {
  const values = [story.start];
  for (const step of story.steps) values.push(applyStep(values[values.length - 1] as number, step));
  return values;
}

/**
 * The sentences of a story.
 * @param wording - which of the wordings to use
 * @param unknown - index of the number told as "x": 0 is the start, i the operand of step i - 1; none where absent
 */
export function tellStory(story: Story, wording: number, unknown = -1): string {
  const opening = story.opening[wording % story.opening.length] as (n: string) => string;
  const sentences = [opening(unknown === 0 ? 'x' : String(story.start))];
  story.steps.forEach((step, i) => {
    const tell = step.tell[wording % step.tell.length] as (n: string) => string;
    sentences.push(tell(unknown === i + 1 ? 'x' : String(step.operand)));
  });
  return sentences.filter((sentence) => sentence !== '').join(' ');
}

/** The reasoning from the first number to the result, one sentence on each line. */
export function solveForward(story: Story): string {
  const values = storyValues(story);
  return story.steps
    .map((step, i) => {
      const equation = stepEquation(String(values[i]), step, String(step.operand), String(values[i + 1]));
      return `${step.lead}, ${(step.state ?? story.state)(equation)}.`;
    })
    .join('\n');
}

/** The reasoning from the result back to the unknown number, one sentence on each line. */
export function solveBackward(story: Story, unknown: number): string {
  const values = storyValues(story);
  const lines: string[] = [];
  const last = story.steps.length;
  for (let i = 0; i < unknown - 1; i++) {
    const step = story.steps[i] as StoryStep;
    const equation = stepEquation(String(values[i]), step, String(step.operand), String(values[i + 1]));
    lines.push(`${step.lead}, ${(step.state ?? story.state)(equation)}.`);
  }
  for (let i = last - 1; i >= unknown; i--) {
    const step = story.steps[i] as StoryStep;
    lines.push(
      `Before the step ${describeStep(step)}, the number was ${undo(step, values[i + 1] as number, values[i] as number)}.`,
    );
  }
  if (unknown > 0) {
    const step = story.steps[unknown - 1] as StoryStep;
    const before = values[unknown - 1] as number;
    const after = values[unknown] as number;
    lines.push(
      `So we need ${stepEquation(String(before), step, 'x', String(after))}, and x = ${findOperand(step, before, after)}.`,
    );
  }
  return lines.join('\n');
}

function describeStep(step: StoryStep): string {
  return step.op === 'from' ? `"${step.operand} minus it"` : `"${step.op} ${step.operand}"`;
}

function undo(step: StoryStep, after: number, before: number): string {
  switch (step.op) {
    case '+':
      return `${after} - ${step.operand} = ${before}`;
    case '-':
      return `${after} + ${step.operand} = ${before}`;
    case '*':
      return `${after} / ${step.operand} = ${before}`;
    case '/':
      return `${after} * ${step.operand} = ${before}`;
    case 'from':
      return `${step.operand} - ${after} = ${before}`;
  }
}

function findOperand(step: StoryStep, before: number, after: number): string {
  switch (step.op) {
    case '+':
      return `${after} - ${before} = ${step.operand}`;
    case '-':
      return `${before} - ${after} = ${step.operand}`;
    case '*':
      return `${after} / ${before} = ${step.operand}`;
    case '/':
      return `${before} / ${after} = ${step.operand}`;
    case 'from':
      return `${after} + ${before} = ${step.operand}`;
  }
}

/** One of the numbers from 2 to `limit` that divide `value` and leave more than one; 0 where there is none. */
export function drawDivisor(random: Random, value: number, limit: number): number {
  const divisors: number[] = [];
  for (let d = 2; d <= limit && d < value; d++) if (value % d === 0) divisors.push(d);
  return divisors.length === 0 ? 0 : random.pick(divisors);
}
