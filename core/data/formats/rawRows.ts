/** Rows of a file of any kind that import reads, as a stream: each with its place, and its value or what is wrong with it. */
import { extname } from 'node:path';
import { CsvSplitter, delimiterOf } from './csvRows.ts';
import { ArraySplitter, LineSplitter } from './jsonRows.ts';
import { kindOf, openText, readHead } from './openText.ts';
import { readParquetRows } from './parquetRows.ts';
import { DamagedFile } from './pieces.ts';
import { badRow, isBlank, lineEnd, type RawRow, type RowSplitter } from './rawRow.ts';

export interface ReadOptions {
  /** Columns to read of a Parquet file, where it has any of them. */
  columns?: ReadonlySet<string>;
  /** Told how far reading is, as a share of the file. */
  onRead?: (share: number) => void;
  /** Size of the file, for `onRead`. */
  bytes?: number;
}

/**
 * Damage ends no import: what came before it is given, and the damage itself as a row's problem.
 * @throws `not_found`, `permission_denied`, `bad_file` (a folder)
 */
export async function* readRawRows(path: string, options: ReadOptions = {}): AsyncGenerator<RawRow> {
  const { columns = new Set<string>(), onRead = () => {}, bytes = 1 } = options;
  let line = 0;
  try {
    const kind = kindOf(await readHead(path));
    const rows =
      kind === 'parquet'
        ? readParquetRows(path, columns, (done, total) => onRead(done / total))
        : readTextRows(path, kind, (done) => onRead(done / bytes));
    for await (const row of rows) {
      line = row.line;
      yield row;
    }
  } catch (error) {
    if (!(error instanceof DamagedFile)) throw error;
    yield badRow(line + 1, 'damaged_file', error.message);
  }
}

async function* readTextRows(
  path: string,
  kind: string,
  onRead: (bytes: number) => void,
): AsyncGenerator<RawRow> {
  let splitter: RowSplitter | null = null;
  let damage: unknown;
  const text = openText(path, kind, onRead);
  try {
    let head: Buffer | null = Buffer.alloc(0);
    for await (const piece of text) {
      if (head !== null) {
        // White space alone says nothing about the layout.
        head = head.length === 0 ? piece : Buffer.concat([head, piece]);
        if (head.length < 1 << 20 && isBlank(head)) continue;
      }
      splitter ??= splitterFor(head!, path);
      yield* splitter.push(head ?? piece);
      head = null;
    }
  } catch (error) {
    damage = error;
  }
  if (splitter) yield* splitter.end();
  if (damage !== undefined) throw damage as Error;
}

/** The layout is told from the first piece; the name decides only where the content leaves it open. */
function splitterFor(head: Buffer, path: string): RowSplitter {
  const end = lineEnd(head);
  const lines = head
    .subarray(0, 1 << 18)
    .toString('utf8')
    .split(end === 0x0a ? '\n' : '\r')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .slice(0, 20);
  const first = lines[0] ?? '';
  if (first.startsWith('[')) {
    // A whole array in each line is JSONL; one that the file consists of, an array.
    const jsonl = lines.length > 1 && /^[[{]/.test(lines[1]!) && isJson(first);
    return jsonl ? new LineSplitter(end) : new ArraySplitter();
  }
  if (lines.some((line) => line.startsWith('{') && line.endsWith('}') && isJson(line)))
    return new LineSplitter(end);
  if (first.startsWith('{')) return new LineSplitter(end);
  const name = extname(path.replace(/\.(gz|zst|zstd)$/i, '')).toLowerCase();
  const table = name === '.csv' || name === '.tsv';
  const delimiter = delimiterOf(first) ?? (table ? (name === '.tsv' ? 0x09 : 0x2c) : null);
  if (delimiter === null || (!table && /^\.(jsonl?|ndjson)$/.test(name))) return new LineSplitter(end);
  return new CsvSplitter(delimiter, end);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
