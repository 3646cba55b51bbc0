import type { Check } from './problem.ts';

/**
 * Scores one answer by exact match on what was asked for, so that a terse right answer and a well-reasoned right
 * answer both count. Reasoning is not judged; an answer with no recognisable final answer is wrong.
 *
 * @param row - anything with a `check` (rows and problems of the demo)
 * @param text - the model's answer, without the end-of-text token
 */
export function checkAnswer(row: { check: Check }, text: string): boolean {
  const { check } = row;
  switch (check.by) {
    case 'number':
      return finalNumber(text) === check.value;
    case 'ending':
      return endsWithValue(text, check.value);
    case 'block':
      return endsWithLines(text, check.value);
    case 'output':
      return samePrinted(text, check.value);
    case 'code': {
      const code = normaliseCode(codeIn(text) ?? text);
      return check.accepted.some((accepted) => normaliseCode(accepted) === code);
    }
  }
}

/** The number after the last "answer is", else the last number of the text; NaN where there is none. */
export function finalNumber(text: string): number {
  const at = text.toLowerCase().lastIndexOf('answer is');
  const numbers = (at < 0 ? text : text.slice(at)).match(/-?\d+(?:\.\d+)?/g);
  if (numbers === null) return NaN;
  return Number(at < 0 ? numbers[numbers.length - 1] : numbers[0]);
}

/** The contents of the last closed fenced block, or null. */
export function codeIn(text: string): string | null {
  const blocks = [...text.matchAll(/```[a-z]*\n([\s\S]*?)\n?```/g)];
  return blocks.length === 0 ? null : (blocks[blocks.length - 1]?.[1] ?? '');
}

/** Lower case, single spaces, no quotes around and no full stop at the end. */
function normalise(text: string): string {
  return text
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/[."'!?\s]+$/, '')
    .replace(/^["'\s]+/, '');
}

/** True where the last line is the value, or ends with it right after a colon, "is", "are" or a quote. */
function endsWithValue(text: string, value: string): boolean {
  const lines = text.trim().split('\n');
  const last = normalise(lines[lines.length - 1] ?? '');
  const wanted = normalise(value);
  if (last === wanted) return true;
  if (!last.endsWith(wanted)) return false;
  return /(?:[:"]|\b(?:is|are))\s*$/.test(last.slice(0, last.length - wanted.length));
}

function endsWithLines(text: string, value: string): boolean {
  const lines = text.trim().split('\n').map(normaliseLine);
  const wanted = value.split('\n').map(normaliseLine);
  return (
    lines.length >= wanted.length &&
    wanted.every((line, i) => lines[lines.length - wanted.length + i] === line)
  );
}

function normaliseLine(line: string): string {
  return line.trim().replace(/\s+/g, ' ');
}

/** A fenced block's contents, the whole text, or what follows its last colon, against what a program prints. */
function samePrinted(text: string, value: string): boolean {
  const wanted = trimLines(value);
  const block = codeIn(text);
  if (block !== null) return trimLines(block) === wanted;
  if (trimLines(text) === wanted) return true;
  const colon = text.lastIndexOf(':');
  return colon >= 0 && trimLines(text.slice(colon + 1)) === wanted;
}

function trimLines(text: string): string {
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim())
    .join('\n');
}

/** Code with trailing blanks, empty lines, quote style and JavaScript's final semicolons made equal. */
function normaliseCode(code: string): string {
  return code
    .split('\n')
    .map((line) => line.trimEnd().replaceAll("'", '"').replace(/;$/, ''))
    .filter((line) => line !== '')
    .join('\n');
}
