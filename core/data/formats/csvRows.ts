/** CSV and TSV (RFC 4180, any of four delimiters), cut into rows: objects of strings by the header's names. */
import { isUtf8 } from 'node:buffer';
import { parseRow } from './jsonRows.ts';
import { badRow, isBlank, maxRowBytes, tooLong, type RawRow, type RowSplitter } from './rawRow.ts';

const quote = 0x22;

/** Where a record ends, its fields (without quotes around them), and whether quotes are as they must be. */
interface Scan {
  /** After the end of line; -1 where the bytes end inside the record. */
  end: number;
  fields: { from: number; to: number; quoted: boolean }[];
  state: 'whole' | 'open quote' | 'text after quote';
}

export class CsvSplitter implements RowSplitter {
  readonly #delimiter: number;
  readonly #lineEnd: number;
  #names: string[] | null = null;
  #rest: Buffer = Buffer.alloc(0);
  #line = 1;
  /** Inside a line that is too long. */
  #skipping = false;

  constructor(delimiter: number, lineEnd = 0x0a) {
    this.#delimiter = delimiter;
    this.#lineEnd = lineEnd;
  }

  *push(bytes: Buffer): Iterable<RawRow> {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    yield* this.#read(false);
    this.#rest = Buffer.from(this.#rest);
  }

  *end(): Iterable<RawRow> {
    yield* this.#read(true);
  }

  *#read(last: boolean): Iterable<RawRow> {
    let start = 0;
    const bytes = this.#rest;
    const nextLine = (from: number) => {
      const at = bytes.indexOf(this.#lineEnd, from);
      return at < 0 ? bytes.length : at + 1;
    };
    while (start < bytes.length) {
      if (this.#skipping) {
        const end = nextLine(start);
        this.#skipping = end === bytes.length && bytes[end - 1] !== this.#lineEnd;
        if (!this.#skipping) this.#line++;
        start = end;
        continue;
      }
      const scan = this.#scan(bytes, start);
      const open = scan.state === 'open quote';
      const incomplete = scan.end < 0;
      const long = (incomplete ? bytes.length : scan.end) - start > maxRowBytes;
      if (incomplete && !last && !long) break;
      const named = this.#names?.length ?? scan.fields.length;
      const several = !incomplete && nextLine(start) < scan.end;
      const problem = open
        ? badRow(this.#line, 'malformed_csv', 'a quote is opened and never closed')
        : long
          ? tooLong(this.#line)
          : scan.state === 'text after quote'
            ? badRow(this.#line, 'malformed_csv', 'there is text after a closing quote')
            : several && scan.fields.length !== named
              ? this.#wrongCount(scan.fields.length)
              : null;
      if (problem) {
        // A stray quote must not swallow the rows after it: reading goes on at the next line.
        yield problem;
        const end = nextLine(start);
        this.#skipping = end === bytes.length && bytes[end - 1] !== this.#lineEnd;
        if (!this.#skipping) this.#line++;
        start = end;
        continue;
      }
      const end = incomplete ? bytes.length : scan.end;
      const record = bytes.subarray(start, end);
      if (!isBlank(record) || this.#delimiter === 0x09) yield* this.#record(record, scan, start);
      for (let at = start; (at = bytes.indexOf(this.#lineEnd, at)) >= 0 && at < end; at++) this.#line++;
      start = end;
    }
    this.#rest = bytes.subarray(start);
  }

  *#record(record: Buffer, { fields }: Scan, start: number): Iterable<RawRow> {
    if (isBlank(record) && fields.length !== this.#names?.length) return;
    if (!isUtf8(record)) {
      yield parseRow(record, this.#line); // which names the byte
      return;
    }
    const texts = fields.map(({ from, to, quoted }) => {
      const text = record.toString('utf8', from - start, to - start);
      return quoted ? text.replaceAll('""', '"') : text;
    });
    if (this.#names === null) {
      const seen = new Set<string>();
      this.#names = texts.map((text, index) => {
        const name = text.trim();
        const own = name === '' || seen.has(name) ? `column${index + 1}` : name;
        seen.add(own);
        return own;
      });
      return;
    }
    if (texts.length !== this.#names.length) yield this.#wrongCount(texts.length);
    else {
      const names = this.#names;
      const value = Object.fromEntries(texts.map((text, index) => [names[index]!, text]));
      yield { line: this.#line, content: { value } };
    }
  }

  #wrongCount(count: number): RawRow {
    return badRow(
      this.#line,
      'malformed_csv',
      `the row has ${count} fields, the header ${this.#names!.length}`,
    );
  }

  #scan(bytes: Buffer, start: number): Scan {
    const fields: Scan['fields'] = [];
    for (let at = start; ;) {
      if (bytes[at] === quote) {
        const from = at + 1;
        let close = from;
        for (;;) {
          close = bytes.indexOf(quote, close);
          if (close < 0) return { end: -1, fields, state: 'open quote' };
          if (bytes[close + 1] !== quote) break;
          close += 2;
        }
        fields.push({ from, to: close, quoted: true });
        at = close + 1;
        if (
          bytes[at] === 0x0d &&
          this.#lineEnd !== 0x0d &&
          (bytes[at + 1] ?? this.#lineEnd) === this.#lineEnd
        )
          at++;
      } else {
        const from = at;
        while (at < bytes.length && bytes[at] !== this.#delimiter && bytes[at] !== this.#lineEnd) at++;
        const to = bytes[at - 1] === 0x0d && at > from && bytes[at] !== this.#delimiter ? at - 1 : at;
        fields.push({ from, to, quoted: false });
      }
      if (at >= bytes.length) return { end: -1, fields, state: 'whole' };
      if (bytes[at] === this.#lineEnd) return { end: at + 1, fields, state: 'whole' };
      if (bytes[at] !== this.#delimiter) return { end: at, fields, state: 'text after quote' };
      at++;
    }
  }
}

/** The delimiter of a header line, or null where it reads like none: two names at least, all different. */
export function delimiterOf(header: string): number | null {
  const counts = [',', '\t', ';', '|'].map((delimiter) => {
    const names = header.split(delimiter).map((name) => name.trim().replace(/^"|"$/g, ''));
    const good = names.length > 1 && names.every((name) => name !== '' && name.length <= 64);
    return { delimiter, names: good && new Set(names).size === names.length ? names.length : 0 };
  });
  const best = counts.reduce((a, b) => (b.names > a.names ? b : a));
  return best.names > 0 ? best.delimiter.charCodeAt(0) : null;
}
