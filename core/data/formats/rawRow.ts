import type { Problem } from './formats.ts';

/** One row of a source file, before anyone asks what format it has. */
export interface RawRow {
  /** Line (JSONL; CSV: the record's first) or number of the row (JSON array, Parquet), from 1. */
  line: number;
  content: { value: unknown } | { problem: Problem };
}

/** Cuts the bytes of a text file into rows. */
export interface RowSplitter {
  push(bytes: Buffer): Iterable<RawRow>;
  end(): Iterable<RawRow>;
}

/**
 * Longer rows are named rather than read: a book of 16 MiB is four million tokens, and every copy of a row (bytes, text,
 * value, messages, table) costs its length again.
 */
export const maxRowBytes = 16 * 1024 * 1024;

export function badRow(line: number, reason: Problem['reason'], detail: string): RawRow {
  return { line, content: { problem: { reason, field: null, detail } } };
}

export function tooLong(line: number): RawRow {
  return badRow(line, 'row_too_long', `the row is longer than ${maxRowBytes / 1024 / 1024} MiB`);
}

/** Nothing but the white space that JSON and CSV know. NUL is none: a line of them is damage and is named. */
export function isBlank(bytes: Uint8Array): boolean {
  for (const byte of bytes)
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return false;
  return true;
}

/** The end of lines: a file without a single newline may be of the kind that ends them with a carriage return alone. */
export function lineEnd(head: Buffer): number {
  return head.includes(0x0a) || !head.includes(0x0d) ? 0x0a : 0x0d;
}
