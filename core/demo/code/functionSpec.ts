import type { Language } from '../problem.ts';
import type { Random } from '../random.ts';

/** A value that a demo program takes or gives. */
export type Value = number | string | boolean | readonly Value[];

/** One small function in both languages, with its meaning as a plain function to compute examples by. */
export interface FunctionSpec {
  /** Words of its name: `['double', 'scores']`. */
  name: readonly string[];
  params: readonly string[];
  /** What it does, to stand after "that": "returns every score times 2". */
  does: string;
  /** Accepted bodies, without indentation; the first one is the one that answers show. */
  python: readonly string[];
  javascript: readonly string[];
  /** A wrong body for each language, and what is wrong with it. */
  bug: { python: string; javascript: string; reason: string };
  /** One sentence on how it works. */
  explain: string;
  apply: (...args: never[]) => Value;
  /** Draws arguments that show what the function does. */
  args: (random: Random) => Value[];
  easy: boolean;
}

/** The function's name as each language writes it. */
export function functionName(spec: FunctionSpec, language: Language): string {
  if (language === 'python') return spec.name.join('_');
  return spec.name.map((word, i) => (i === 0 ? word : word.charAt(0).toUpperCase() + word.slice(1))).join('');
}

/** First line of the function: `def double_scores(scores):` or `function doubleScores(scores) {`. */
export function signature(spec: FunctionSpec, language: Language): string {
  const head = `${functionName(spec, language)}(${spec.params.join(', ')})`;
  return language === 'python' ? `def ${head}:` : `function ${head} {`;
}

/** The whole function with the given body, indented as is usual in the language. */
export function writeFunction(spec: FunctionSpec, language: Language, body: string): string {
  const indent = language === 'python' ? '    ' : '  ';
  const lines = body
    .split('\n')
    .map((line) => indent + line.replace(/^( +)/, (spaces) => indent.repeat(spaces.length / 2)));
  return [signature(spec, language), ...lines, ...(language === 'python' ? [] : ['}'])].join('\n');
}

/** The programs that count as a right answer: one for each accepted body. */
export function acceptedPrograms(spec: FunctionSpec, language: Language): string[] {
  return spec[language].map((body) => writeFunction(spec, language, body));
}

/** A value as the language writes it in source and, for what is not a bare string, as it prints it. */
export function writeValue(value: Value, language: Language): string {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return language === 'python' ? `'${value}'` : `"${value}"`;
  if (typeof value === 'boolean') return language === 'python' ? (value ? 'True' : 'False') : String(value);
  return `[${value.map((item) => writeValue(item, language)).join(', ')}]`;
}

/** A call of the function: `double_scores([1, 2])`. */
export function writeCall(spec: FunctionSpec, language: Language, args: readonly Value[]): string {
  return `${functionName(spec, language)}(${args.map((arg) => writeValue(arg, language)).join(', ')})`;
}
