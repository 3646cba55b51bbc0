/** JSONL and JSON arrays, cut into rows. Memory is bounded by {@link maxRowBytes}, not by the file. */
import { isUtf8 } from 'node:buffer';
import { badRow, isBlank, maxRowBytes, tooLong, type RawRow, type RowSplitter } from './rawRow.ts';

/** Shorter rows cannot hold enough values to matter, and are not looked through before they are parsed. */
const harmlessBytes = 64 * 1024;
const maxDepth = 64;
/** A value takes about 60 bytes once parsed: these, six megabytes. */
const maxValues = 100_000;

export function parseRow(bytes: Buffer, line: number): RawRow {
  if (!isUtf8(bytes)) {
    const bad = firstBadByte(bytes);
    const value = bytes[bad - 1]?.toString(16).toUpperCase().padStart(2, '0');
    return badRow(
      line,
      'invalid_utf8',
      `not valid UTF-8 (byte ${bad} of the row${value === undefined ? '' : ` is 0x${value}`})`,
    );
  }
  if (bytes.length > harmlessBytes) {
    const excess = excessOf(bytes);
    if (excess !== null) return badRow(line, 'too_complex', excess);
  }
  let text = bytes.toString('utf8');
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1); // files joined with their byte order marks
  try {
    return { line, content: { value: JSON.parse(text) as unknown } };
  } catch (error) {
    return badRow(line, 'malformed_json', jsonProblem(error as Error));
  }
}

/** V8's words, without the line that it counts inside the row, which would be taken for one of the file. */
function jsonProblem({ message }: Error): string {
  return message.replace(/ in JSON at position \d+ \(line 1 column (\d+)\)$/, ' at column $1');
}

/** What of a row is too much to parse, or null: 16 MiB of `[` would take gigabytes. */
function excessOf(bytes: Buffer): string | null {
  let depth = 0;
  let values = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (byte === 0x22) {
      do {
        i = bytes.indexOf(0x22, i + 1);
        if (i < 0) return null; // torn: parsing will say so
      } while (isEscaped(bytes, i));
    } else if (byte === 0x5b || byte === 0x7b) {
      values++;
      if (++depth > maxDepth) return `more than ${maxDepth} levels deep`;
    } else if (byte === 0x5d || byte === 0x7d) depth--;
    else if (byte === 0x2c) values++;
    if (values > maxValues) return `more than ${maxValues} values in one row`;
  }
  return null;
}

function isEscaped(bytes: Buffer, at: number): boolean {
  let slashes = 0;
  while (bytes[at - 1 - slashes] === 0x5c) slashes++;
  return slashes % 2 === 1;
}

/** From 1. */
function firstBadByte(bytes: Buffer): number {
  let good = 0;
  let bad = bytes.length;
  // Bisect on "the prefix decodes when read as a stream".
  while (good < bad) {
    const middle = (good + bad + 1) >> 1;
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      good = middle;
    } catch {
      bad = middle - 1;
    }
  }
  return good + 1;
}

export class LineSplitter implements RowSplitter {
  readonly #lineEnd: number;
  #parts: Buffer[] = [];
  #length = 0;
  #line = 1;

  constructor(lineEnd = 0x0a) {
    this.#lineEnd = lineEnd;
  }

  *push(bytes: Buffer): Iterable<RawRow> {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(this.#lineEnd, start);
      if (end < 0) break;
      yield* this.#finish(bytes.subarray(start, end));
      start = end + 1;
    }
    const rest = bytes.subarray(start);
    this.#length += rest.length;
    if (this.#length > maxRowBytes) this.#parts = [];
    else if (rest.length > 0) this.#parts.push(Buffer.from(rest));
  }

  *end(): Iterable<RawRow> {
    yield* this.#finish(Buffer.alloc(0));
  }

  *#finish(tail: Buffer): Iterable<RawRow> {
    const line = this.#line++;
    const length = this.#length + tail.length;
    const row = this.#parts.length === 0 ? tail : Buffer.concat([...this.#parts, tail]);
    this.#parts = [];
    this.#length = 0;
    if (length > maxRowBytes) yield tooLong(line);
    else if (!isBlank(row)) yield parseRow(row, line);
  }
}

/** Cuts `[ {…}, {…} ]` into its elements by counting brackets outside strings. */
export class ArraySplitter implements RowSplitter {
  #parts: Buffer[] = [];
  #length = 0;
  #element = 1;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #state: 'before' | 'inside' | 'after' = 'before';
  #strayText = false;

  *push(bytes: Buffer): Iterable<RawRow> {
    let start = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (this.#state !== 'inside') {
        if (byte === 0x5b) {
          // Arrays one after the other are read on.
          this.#state = 'inside';
          start = i + 1;
        } else if (!this.#strayText && !isBlank(bytes.subarray(i, i + 1))) {
          this.#strayText = true;
          yield badRow(this.#element++, 'malformed_json', 'there is text outside of the array');
        }
        continue;
      }
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === 0x5c) this.#escaped = true;
        else if (byte === 0x22) this.#inString = false;
        continue;
      }
      if (byte === 0x22) this.#inString = true;
      else if (byte === 0x5b || byte === 0x7b) this.#depth++;
      else if (byte === 0x5d || byte === 0x7d) {
        if (this.#depth > 0) {
          this.#depth--;
          continue;
        }
        yield* this.#finish(bytes.subarray(start, i));
        this.#state = 'after';
        this.#strayText = false;
      } else if (byte === 0x2c && this.#depth === 0) {
        yield* this.#finish(bytes.subarray(start, i));
        start = i + 1;
      }
    }
    if (this.#state !== 'inside') return;
    const rest = bytes.subarray(start);
    this.#length += rest.length;
    if (this.#length > maxRowBytes) this.#parts = [];
    else if (rest.length > 0) this.#parts.push(Buffer.from(rest));
  }

  *end(): Iterable<RawRow> {
    if (this.#state !== 'inside') return;
    const cut = this.#length > maxRowBytes || !isBlank(Buffer.concat(this.#parts));
    // What came whole before the cut is kept; the torn element is named.
    yield badRow(
      this.#element,
      'malformed_json',
      cut
        ? `the file ends inside element ${this.#element}: it was cut short`
        : `the file ends before the array's closing bracket: it was cut short`,
    );
  }

  *#finish(tail: Buffer): Iterable<RawRow> {
    const length = this.#length + tail.length;
    const row = this.#parts.length === 0 ? tail : Buffer.concat([...this.#parts, tail]);
    this.#parts = [];
    this.#length = 0;
    if (length <= maxRowBytes && isBlank(row)) return;
    const element = this.#element++;
    yield length > maxRowBytes ? tooLong(element) : parseRow(row, element);
  }
}
