import { CaravanError } from '../shared/contract/errors.ts';
import type { VerbContext } from './Verb.ts';

type Options = VerbContext['options'];

/** The one word a verb works on. @throws `bad_option` naming what is missing. */
export function oneWord(context: VerbContext, what: string): string {
  const [word, extra] = context.words;
  if (word === undefined) throw new CaravanError('bad_option', `${what} is missing`);
  if (extra !== undefined)
    throw new CaravanError('bad_option', `one ${what} at a time, but got also '${extra}'`);
  return word;
}

export function text(options: Options, name: string): string | undefined {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
}

export function required(options: Options, name: string): string {
  const value = text(options, name);
  if (value === undefined) throw new CaravanError('bad_option', `--${name} is missing`);
  return value;
}

export function number(options: Options, name: string): number | undefined {
  const value = text(options, name);
  if (value === undefined) return undefined;
  const parsed = Number(value);
  if (value.trim() === '' || !Number.isFinite(parsed))
    throw new CaravanError('bad_option', `--${name} needs a number, not '${value}'`);
  return parsed;
}

export function flag(options: Options, name: string): boolean {
  return options[name] === true;
}

export function list(options: Options, name: string): string[] {
  const value = options[name];
  return Array.isArray(value) ? value : typeof value === 'string' ? [value] : [];
}

/** One of a fixed set. */
export function choice<T extends string>(
  options: Options,
  name: string,
  allowed: readonly T[],
): T | undefined {
  const value = text(options, name);
  if (value === undefined) return undefined;
  if (!allowed.includes(value as T))
    throw new CaravanError('bad_option', `--${name} is one of ${allowed.join(', ')}, not '${value}'`);
  return value as T;
}
