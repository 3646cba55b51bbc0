/**
 * The small language that runs are filtered by, in the window and on the command line:
 *
 *   loss < 1.2 and method = pesc and tag:demo
 *   (is:starred or heldOut <= 1.5) and not state = failed
 *   took > 30min and created > 2026-11-01
 *   camelidae 7b                 words, each somewhere in name, model, mix, method, state, tags or note
 */
import type { Run } from './run.ts';
import { isLive } from './transitions.ts';
import { runProperties, runProperty, type RunProperty } from './runProperties.ts';

/** What is wrong with a filter, and where: `at` counts characters from 0. */
export interface FilterProblem {
  message: string;
  at: number;
  length: number;
}

export type ParsedFilter = { matches: (run: Run) => boolean } | { problem: FilterProblem };

type Test = (run: Run) => boolean;
interface Token {
  kind: 'word' | 'text' | 'operator' | 'open' | 'close' | 'end';
  text: string;
  at: number;
  length: number;
}

const operators = ['<=', '>=', '!=', '<', '>', '=', '~'] as const;
type Operator = (typeof operators)[number];

class FilterError extends Error {
  readonly token: Pick<Token, 'at' | 'length'>;
  constructor(message: string, token: Pick<Token, 'at' | 'length'>) {
    super(message);
    this.token = token;
  }
}

/** @param now for spans back from today, `created > 7d` */
export function parseFilter(text: string, now = Date.now()): ParsedFilter {
  try {
    const parser = new Parser(tokenize(text), now);
    return { matches: parser.whole() };
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    const { at, length } = error.token;
    return { problem: { message: error.message, at, length } };
  }
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  while (at < text.length) {
    const rest = text.slice(at);
    const space = /^\s+/.exec(rest);
    if (space) {
      at += space[0].length;
      continue;
    }
    const put = (kind: Token['kind'], content: string, length: number) => {
      tokens.push({ kind, text: content, at, length });
      at += length;
    };
    const operator = operators.find((sign) => rest.startsWith(sign));
    if (rest[0] === '(') put('open', '(', 1);
    else if (rest[0] === ')') put('close', ')', 1);
    else if (operator) put('operator', operator, operator.length);
    else if (rest[0] === '"' || rest[0] === "'") {
      const end = rest.indexOf(rest[0], 1);
      if (end < 0)
        throw new FilterError(`this quotation is not closed: add ${rest[0]}`, { at, length: rest.length });
      put('text', rest.slice(1, end), end + 1);
    } else {
      const word = /^[^\s()<>=!~"']+/.exec(rest);
      if (!word) throw new FilterError(`'${rest[0]}' means nothing here`, { at, length: 1 });
      put('word', word[0], word[0].length);
    }
  }
  tokens.push({ kind: 'end', text: '', at: text.length, length: 1 });
  return tokens;
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #now: number;
  #next = 0;

  constructor(tokens: readonly Token[], now: number) {
    this.#tokens = tokens;
    this.#now = now;
  }

  whole(): Test {
    if (this.#peek().kind === 'end') return () => true;
    const test = this.#any();
    const left = this.#peek();
    if (left.kind === 'close') throw new FilterError('this ) closes nothing', left);
    if (left.kind !== 'end') throw new FilterError(`'${left.text}' is not expected here`, left);
    return test;
  }

  #peek(ahead = 0): Token {
    return this.#tokens[Math.min(this.#next + ahead, this.#tokens.length - 1)]!;
  }
  #take(): Token {
    const token = this.#peek();
    this.#next++;
    return token;
  }
  #isWord(word: string): boolean {
    const { kind, text } = this.#peek();
    return kind === 'word' && text.toLowerCase() === word;
  }

  #any(): Test {
    const tests = [this.#all()];
    while (this.#isWord('or')) {
      this.#take();
      tests.push(this.#all());
    }
    return tests.length === 1 ? tests[0]! : (run) => tests.some((test) => test(run));
  }

  /** `and` may be left out. */
  #all(): Test {
    const tests = [this.#one()];
    for (;;) {
      if (this.#isWord('and')) this.#take();
      else if (['end', 'close'].includes(this.#peek().kind) || this.#isWord('or')) break;
      tests.push(this.#one());
    }
    return tests.length === 1 ? tests[0]! : (run) => tests.every((test) => test(run));
  }

  #one(): Test {
    if (this.#isWord('not')) {
      this.#take();
      const test = this.#one();
      return (run) => !test(run);
    }
    const token = this.#take();
    switch (token.kind) {
      case 'open': {
        const test = this.#any();
        const close = this.#take();
        if (close.kind !== 'close') throw new FilterError('this ( is not closed: add )', token);
        return test;
      }
      case 'text':
        return contains(token.text);
      case 'word':
        if (['and', 'or'].includes(token.text.toLowerCase()))
          throw new FilterError(`there is nothing before '${token.text}'`, token);
        if (this.#peek().kind === 'operator') return this.#comparison(token);
        return word(token);
      case 'end':
        throw new FilterError('something is missing at the end', token);
      default:
        throw new FilterError(`there is nothing before '${token.text}'`, token);
    }
  }

  #comparison(subject: Token): Test {
    const sign = this.#take();
    const value = this.#take();
    if (value.kind !== 'word' && value.kind !== 'text')
      throw new FilterError(`${subject.text} ${sign.text} what? A value is missing`, value);
    if (['tag', 'tags'].includes(subject.text.toLowerCase()) && (sign.text === '=' || sign.text === '!=')) {
      const has = tagged(value.text);
      return sign.text === '=' ? has : (run) => !has(run);
    }
    const property = runProperty(subject.text);
    if (!property) throw new FilterError(unknownName(subject.text), subject);
    return compare(property, sign.text as Operator, value, sign, this.#now);
  }
}

function word(token: Token): Test {
  const [, prefix, rest] = /^(tag|is):(.*)$/is.exec(token.text) ?? [];
  if (prefix === undefined) return contains(token.text);
  if (prefix.toLowerCase() === 'tag') {
    if (rest === '') throw new FilterError('a tag is missing after tag:', token);
    return tagged(rest!);
  }
  const flags: Record<string, Test> = {
    starred: (run) => run.starred,
    archived: (run) => run.archived,
    live: (run) => isLive(run.state),
    ended: (run) => !isLive(run.state),
    noted: (run) => run.note !== '',
    tagged: (run) => run.tags.length > 0,
  };
  const test = flags[rest!.toLowerCase()];
  if (!test) throw new FilterError(`is: takes ${Object.keys(flags).join(', ')}`, token);
  return test;
}

function tagged(tag: string): Test {
  const wanted = tag.toLowerCase();
  return (run) => run.tags.some((one) => one.toLowerCase() === wanted);
}

function contains(text: string): Test {
  const wanted = text.toLowerCase();
  return (run) =>
    [run.name, run.id, run.modelName, run.mixName, run.config.method, run.state, run.note, ...run.tags].some(
      (part) => part.toLowerCase().includes(wanted),
    );
}

function compare(property: RunProperty, operator: Operator, value: Token, sign: Token, now: number): Test {
  const { kind, of } = property;
  // `loss = none`: it has none yet, or it was not finite.
  if (value.kind === 'word' && value.text.toLowerCase() === 'none') {
    if (operator === '=') return (run) => of(run) === null;
    if (operator === '!=') return (run) => of(run) !== null;
    throw new FilterError('none is only = or !=', sign);
  }
  if (kind === 'text') {
    const wanted = value.text.toLowerCase();
    const is = (test: (text: string) => boolean): Test => {
      return (run) => {
        const text = of(run);
        return text !== null && test(String(text).toLowerCase());
      };
    };
    if (operator === '=') return is((text) => text === wanted);
    if (operator === '!=') return (run) => String(of(run) ?? '').toLowerCase() !== wanted;
    if (operator === '~') return is((text) => text.includes(wanted));
    throw new FilterError(`${property.name} is text: it takes =, != and ~ (contains)`, sign);
  }
  if (operator === '~')
    throw new FilterError(`${property.name} is no text: it takes =, !=, <, <=, > and >=`, sign);
  if (kind === 'flag') {
    const wanted = { yes: true, true: true, no: false, false: false }[value.text.toLowerCase()];
    if (wanted === undefined) throw new FilterError(`${property.name} is yes or no`, value);
    if (operator === '=') return (run) => of(run) === wanted;
    if (operator === '!=') return (run) => of(run) !== wanted;
    throw new FilterError(`${property.name} is yes or no: it takes = and !=`, sign);
  }
  const range = readNumber(property, value, now);
  const tests: Record<Exclude<Operator, '~'>, (number: number) => boolean> = {
    '<': (number) => number < range.from,
    '<=': (number) => number <= range.to,
    '>': (number) => number > range.to,
    '>=': (number) => number >= range.from,
    '=': (number) => number >= range.from && number <= range.to,
    '!=': (number) => number < range.from || number > range.to,
  };
  const test = tests[operator];
  return (run) => {
    const number = of(run);
    return typeof number === 'number' && test(number);
  };
}

const spans: Record<string, number> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};
const day = 86_400_000;

/** A value as the stretch of numbers that it stands for: a day, or one number. */
function readNumber({ name, kind }: RunProperty, value: Token, now: number): { from: number; to: number } {
  const text = value.text.toLowerCase();
  const span = /^(\d+(?:\.\d+)?)(ms|s|min|h|d|w)$/.exec(text);
  if (kind === 'date') {
    if (/^\d{4}-\d{2}-\d{2}$/.test(text)) {
      const [year, month, date] = text.split('-').map(Number);
      const from = new Date(year!, month! - 1, date).getTime();
      if (new Date(from).getDate() === date) return { from, to: from + day - 1 };
    }
    if (text === 'today') return { from: new Date(now).setHours(0, 0, 0, 0), to: now };
    if (span) {
      const at = now - Number(span[1]) * spans[span[2]!]!;
      return { from: at, to: at };
    }
    throw new FilterError(`${name} is a date: 2026-11-25, today, or so long ago: 3h, 7d`, value);
  }
  if (kind === 'time') {
    if (span) {
      const ms = Number(span[1]) * spans[span[2]!]!;
      return { from: ms, to: ms };
    }
    throw new FilterError(`${name} is a time: 90s, 30min, 2h, 1d`, value);
  }
  const percent = text.endsWith('%');
  const number = Number((percent ? text.slice(0, -1) : text).replace('−', '-').replaceAll('_', ''));
  if (text === '' || !Number.isFinite(number))
    throw new FilterError(`${name} is a number, not '${value.text}'`, value);
  const exact = percent ? number / 100 : number;
  return { from: exact, to: exact };
}

function unknownName(text: string): string {
  const near = runProperties
    .map(({ name }) => ({ name, distance: editDistance(name.toLowerCase(), text.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]!;
  return near.distance <= 3
    ? `runs have no '${text}': do you mean ${near.name}?`
    : `runs have no '${text}'. They have ${runProperties
        .map(({ name }) => name)
        .slice(0, 12)
        .join(', ')} and every setting of run.yaml`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}
