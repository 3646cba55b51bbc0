/**
 * Rows of JSONL and JSON-array files as a stream: each with its line and either its value or what is wrong with it.
 * Memory is bounded by the longest row, not by the file.
 */
import { createReadStream } from 'node:fs';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Problem } from './formats.ts';

export interface RawRow {
  /** Line (JSONL) or number of the element (JSON array), from 1. */
  line: number;
  /** Bytes of the file up to the end of this row, for progress. */
  endByte: number;
  content: { value: unknown } | { problem: Problem };
}

/** Longer rows are set aside rather than parsed. */
export const maxRowBytes = 64 * 1024 * 1024;

const newline = 0x0a;

/** Streams a file's rows; a file whose first character is `[` is a JSON array, anything else is JSONL. */
export async function* readRawRows(path: string): AsyncGenerator<RawRow> {
  const stream = createReadStream(path, { highWaterMark: 1 << 20 });
  let splitter: Splitter | null = null;
  let seen = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      let bytes = chunk;
      if (splitter === null) {
        if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
          bytes = bytes.subarray(3); // UTF-8 byte order mark
          seen += 3;
        }
        const first = bytes.find((byte) => byte > 0x20);
        splitter = first === 0x5b ? new ArraySplitter() : new LineSplitter();
      }
      yield* splitter.push(bytes, seen);
      seen += bytes.length;
    }
    if (splitter) yield* splitter.end(seen);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT')
      throw new CaravanError('not_found', 'there is no such file', { place: { file: path } });
    if (code === 'EACCES')
      throw new CaravanError('permission_denied', 'the file may not be read', { place: { file: path } });
    if (code === 'EISDIR')
      throw new CaravanError('bad_file', 'this is a folder, not a file', { place: { file: path } });
    throw error;
  } finally {
    stream.destroy();
  }
}

interface Splitter {
  push(bytes: Buffer, offset: number): Iterable<RawRow>;
  end(offset: number): Iterable<RawRow>;
}

function parseRow(bytes: Buffer, line: number, endByte: number): RawRow {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return {
      line,
      endByte,
      content: {
        problem: {
          reason: 'invalid_utf8',
          field: null,
          detail: `not valid UTF-8 (byte ${firstBadByte(bytes)} of the row)`,
        },
      },
    };
  }
  try {
    return { line, endByte, content: { value: JSON.parse(text) as unknown } };
  } catch (error) {
    return {
      line,
      endByte,
      content: { problem: { reason: 'malformed_json', field: null, detail: jsonProblem(error as Error) } },
    };
  }
}

/** V8's words, without the line that it counts inside the row, which would be taken for one of the file. */
function jsonProblem({ message }: Error): string {
  return message.replace(/ in JSON at position \d+ \(line 1 column (\d+)\)$/, ' at column $1');
}

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

function tooLong(line: number, endByte: number): RawRow {
  return {
    line,
    endByte,
    content: {
      problem: {
        reason: 'malformed_json',
        field: null,
        detail: `the row is longer than ${maxRowBytes / 1024 / 1024} MiB`,
      },
    },
  };
}

class LineSplitter implements Splitter {
  #parts: Buffer[] = [];
  #length = 0;
  #line = 1;
  #skipping = false;

  *push(bytes: Buffer, offset: number): Iterable<RawRow> {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(newline, start);
      if (end < 0) break;
      yield* this.#finish(bytes.subarray(start, end), offset + end + 1);
      start = end + 1;
    }
    this.#keep(bytes.subarray(start));
  }

  *end(offset: number): Iterable<RawRow> {
    yield* this.#finish(Buffer.alloc(0), offset);
  }

  #keep(bytes: Buffer): void {
    this.#length += bytes.length;
    if (this.#length > maxRowBytes) {
      this.#skipping = true;
      this.#parts = [];
    } else if (bytes.length > 0) this.#parts.push(Buffer.from(bytes));
  }

  *#finish(tail: Buffer, endByte: number): Iterable<RawRow> {
    const line = this.#line++;
    const row = this.#parts.length === 0 ? tail : Buffer.concat([...this.#parts, tail]);
    const skipped = this.#skipping || this.#length + tail.length > maxRowBytes;
    this.#parts = [];
    this.#length = 0;
    this.#skipping = false;
    if (skipped) yield tooLong(line, endByte);
    else if (row.some((byte) => byte > 0x20)) yield parseRow(row, line, endByte);
  }
}

/** Cuts `[ {…}, {…} ]` into its elements by counting brackets outside strings. */
class ArraySplitter implements Splitter {
  #parts: Buffer[] = [];
  #length = 0;
  #element = 1;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #started = false;
  #closed = false;

  *push(bytes: Buffer, offset: number): Iterable<RawRow> {
    let start = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === 0x5c) this.#escaped = true;
        else if (byte === 0x22) this.#inString = false;
        continue;
      }
      if (byte === 0x22) this.#inString = true;
      else if (byte === 0x5b || byte === 0x7b) {
        if (!this.#started) {
          this.#started = true;
          start = i + 1;
          continue;
        }
        this.#depth++;
      } else if (byte === 0x5d || byte === 0x7d) {
        if (this.#depth === 0) {
          yield* this.#finish(bytes.subarray(start, i), offset + i);
          this.#closed = true;
          start = i + 1;
          continue;
        }
        this.#depth--;
      } else if (byte === 0x2c && this.#depth === 0) {
        yield* this.#finish(bytes.subarray(start, i), offset + i + 1);
        start = i + 1;
      }
    }
    const rest = bytes.subarray(start);
    this.#length += rest.length;
    if (this.#length <= maxRowBytes && rest.length > 0) this.#parts.push(Buffer.from(rest));
  }

  *end(offset: number): Iterable<RawRow> {
    if (this.#closed) return;
    const rest = Buffer.concat(this.#parts);
    const cut = rest.some((byte) => byte > 0x20);
    // What came whole before the cut is kept; the torn element is named.
    yield {
      line: this.#element,
      endByte: offset,
      content: {
        problem: {
          reason: 'malformed_json',
          field: null,
          detail: cut
            ? `the file ends inside element ${this.#element}: it was cut short`
            : `the file ends before the array's closing bracket: it was cut short`,
        },
      },
    };
  }

  *#finish(tail: Buffer, endByte: number): Iterable<RawRow> {
    const skipped = this.#length + tail.length > maxRowBytes;
    const row = this.#parts.length === 0 ? tail : Buffer.concat([...this.#parts, tail]);
    this.#parts = [];
    this.#length = 0;
    if (!skipped && !row.some((byte) => byte > 0x20)) return;
    const element = this.#element++;
    yield skipped ? tooLong(element, endByte) : parseRow(row, element, endByte);
  }
}
