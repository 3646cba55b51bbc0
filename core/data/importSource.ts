import { createHash, hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { DuckDBAppender, DuckDBConnection } from '@duckdb/node-api';
import { CaravanError } from '../shared/contract/errors.ts';
import type { ColumnMapping, Message, RejectReason, SourceFormat } from '../shared/dataset/source.ts';
import { openDatabase, select, sqlString } from './database.ts';
import { readRow, type Problem, type ReadResult, type ReadRow } from './formats/formats.ts';
import { columnsOfInterest, describeGuess, FormatGuess } from './formats/guessFormat.ts';
import { RowObserver } from './formats/observeRows.ts';
import { readRawRows } from './formats/rawRows.ts';
import type { Report } from './protocol.ts';

export interface ImportRequest {
  files: string[];
  format: SourceFormat;
  mapping?: ColumnMapping | undefined;
  /** Receives rows.parquet and rejects.parquet; it must not exist yet. */
  outDir: string;
  /** Of the table of rows; what came in waits on disk beyond it. */
  memoryLimit: string;
}

export interface ImportResult {
  format: SourceFormat;
  notes: string[];
  rowsIn: number;
  rows: number;
  rejected: number;
  rejectedByReason: Record<string, number>;
  labels: Record<string, number>;
  bytes: number;
  contentHash: string;
}

/** Rows that the format is guessed from, and how many are looked at to find so many that parse. */
const sampleRows = 200;
const sampleLimit = 5000;

/**
 * Reads instruction files into one Parquet table. Every row is kept, or named in rejects.parquet with file, line, field
 * and reason. The folder appears whole or not at all.
 * @throws `bad_file` where no format fits; `no_rows` where not one row could be kept.
 */
export async function importSource(
  request: ImportRequest,
  report: Report,
  cancelled: AbortSignal,
): Promise<ImportResult> {
  const sizes = await Promise.all(request.files.map(fileSize));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (bytes === 0)
    throw new CaravanError('no_rows', 'the file is empty', { place: { file: request.files[0]! } });
  const columns = columnsOfInterest(request.mapping);
  const guess =
    request.format === 'auto'
      ? await guessFormat(request.files, columns, cancelled)
      : { format: request.format, notes: [] };
  const scratch = `${request.outDir}.partial`;
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), request.memoryLimit);
  try {
    const { connection } = database;
    const tables = await openTables(connection);
    const observer = new RowObserver();
    let doneBytes = 0;
    for (const [index, file] of request.files.entries()) {
      // Names, not paths: what an import writes does not depend on where its files lie.
      const name = basename(file);
      const size = sizes[index]!;
      let share = 0;
      const rows = readRawRows(file, { columns, bytes: size, onRead: (read) => (share = read) });
      for await (const raw of rows) {
        if (cancelled.aborted) throw new CaravanError('cancelled', 'the import was cancelled');
        const result: ReadResult =
          'problem' in raw.content ? raw.content : readRow(raw.content.value, guess.format, request.mapping);
        if ('problem' in result) {
          tables.reject(name, raw.line, result.problem);
          if (result.mended) tables.mend(name, raw.line, result.mended);
        } else {
          tables.keep(name, raw.line, result.row);
          observer.see(result.row, 'value' in raw.content ? raw.content.value : null);
        }
        const done = Math.min(doneBytes + Math.round(share * size), bytes);
        if (tables.rowsIn % 1000 === 0) report({ done, total: bytes, unit: 'bytes', stage: 'reading' });
      }
      doneBytes += size;
      report({ done: doneBytes, total: bytes, unit: 'bytes', stage: 'reading' });
    }
    tables.close();
    if (tables.kept === 0) throw await noRows(connection, request.files, guess.format, tables.rowsIn);
    report({ done: 0, total: null, unit: 'rows', stage: 'writing' });
    await connection.run(`UPDATE mendable SET "row" = "row" + ${tables.kept}`);
    for (const table of ['rows', 'rejects', ...(tables.mendable > 0 ? ['mendable'] : [])])
      await connection.run(
        `COPY ${table} TO ${sqlString(join(scratch, `${table}.parquet`))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480)`,
      );
    const inputs = createHash('sha256');
    for (const file of request.files) inputs.update(await fileHash(file));
    database.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rename(scratch, request.outDir);
    return {
      format: guess.format,
      notes: [...guess.notes, ...observer.notes()],
      rowsIn: tables.rowsIn,
      rows: tables.kept,
      rejected: tables.rowsIn - tables.kept,
      rejectedByReason: tables.rejectedByReason as Record<string, number>,
      labels: observer.labels(),
      bytes,
      contentHash: inputs.digest('hex'),
    };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
}

interface Tables {
  readonly kept: number;
  readonly mendable: number;
  readonly rowsIn: number;
  readonly rejectedByReason: Partial<Record<RejectReason, number>>;
  keep(file: string, line: number, row: ReadRow): void;
  reject(file: string, line: number, problem: Problem): void;
  /** Keeps a rejected row as it would be with its turns in order, for the mixes that ask for it. */
  mend(file: string, line: number, row: ReadRow): void;
  close(): void;
}

/** Tables `rows`, `rejects` and `mendable`, in the order in which rows come. */
async function openTables(connection: DuckDBConnection): Promise<Tables> {
  for (const table of ['rows', 'mendable'])
    await connection.run(
      `CREATE TABLE ${table} ("row" BIGINT, label VARCHAR, file VARCHAR, line BIGINT, hash VARCHAR, match_hash VARCHAR, "group" VARCHAR, messages VARCHAR)`,
    );
  await connection.run(
    'CREATE TABLE rejects (file VARCHAR, line BIGINT, field VARCHAR, reason VARCHAR, detail VARCHAR)',
  );
  const rows = await connection.createAppender('rows');
  const mendable = await connection.createAppender('mendable');
  const rejects = await connection.createAppender('rejects');
  const rejectedByReason: Partial<Record<RejectReason, number>> = {};
  let kept = 0;
  let mended = 0;
  let rejected = 0;
  let waiting = 0;
  return {
    get kept() {
      return kept;
    },
    get rowsIn() {
      return kept + rejected;
    },
    rejectedByReason,
    get mendable() {
      return mended;
    },
    keep(file, line, row) {
      // The appender holds 200,000 rows before it hands them to the table, whatever their size.
      waiting += append(rows, kept++, file, line, row);
      if (waiting < flushChars) return;
      rows.flushSync();
      waiting = 0;
    },
    mend: (file, line, row) => void append(mendable, mended++, file, line, row),
    reject(file, line, { reason, field, detail }) {
      rejects.appendVarchar(file);
      rejects.appendBigInt(BigInt(line));
      if (field === null) rejects.appendNull();
      else rejects.appendVarchar(field);
      rejects.appendVarchar(reason);
      rejects.appendVarchar(printable(detail));
      rejects.endRow();
      rejectedByReason[reason] = (rejectedByReason[reason] ?? 0) + 1;
      rejected++;
    },
    close() {
      rows.closeSync();
      mendable.closeSync();
      rejects.closeSync();
    },
  };
}

/** @returns the characters of what was appended */
function append(
  table: DuckDBAppender,
  row: number,
  file: string,
  line: number,
  { label, messages, group }: ReadRow,
): number {
  const json = JSON.stringify(messages);
  table.appendBigInt(BigInt(row));
  table.appendVarchar(label);
  table.appendVarchar(file);
  table.appendBigInt(BigInt(line));
  table.appendVarchar(contentHash(json));
  table.appendVarchar(contentHash(normalised(messages)));
  if (group === undefined) table.appendNull();
  else table.appendVarchar(contentHash(sameWords(group)));
  table.appendVarchar(json);
  table.endRow();
  return json.length;
}
const flushChars = 16 << 20;

/** Parsers quote what they met, which may be anything. */
function printable(detail: string): string {
  return detail
    .slice(0, 300)
    .toWellFormed()
    .replace(/\p{Cc}/gu, '\uFFFD');
}

async function noRows(
  connection: DuckDBConnection,
  files: readonly string[],
  format: SourceFormat,
  rejected: number,
): Promise<CaravanError> {
  const [first] = await select<{
    file: string;
    line: number;
    field: string | null;
    reason: string;
    detail: string;
  }>(connection, 'SELECT * FROM rejects LIMIT 1');
  const file = (first && files.find((path) => basename(path) === first.file)) ?? files[0]!;
  return new CaravanError(
    'no_rows',
    first
      ? `not one of ${rejected} rows could be read as ${format}; the first: ${first.reason}: ${first.detail}`
      : 'the file holds no rows',
    {
      place: { file, ...(first && { line: first.line }), ...(first?.field && { field: first.field }) },
      mend: 'Check the file, or say what it is with --format or --map.',
    },
  );
}

async function fileSize(file: string): Promise<number> {
  try {
    const info = await stat(file);
    if (!info.isFile()) throw new CaravanError('bad_file', 'this is not a file', { place: { file } });
    return info.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new CaravanError('not_found', 'there is no such file', { place: { file } });
    throw error;
  }
}

async function guessFormat(
  files: string[],
  columns: ReadonlySet<string>,
  cancelled: AbortSignal,
): Promise<{ format: Exclude<SourceFormat, 'auto'>; notes: string[] }> {
  const collected = new FormatGuess();
  let looked = 0;
  for (const file of files) {
    if (collected.sampled >= sampleRows || looked >= sampleLimit) break;
    for await (const raw of readRawRows(file, { columns })) {
      if (cancelled.aborted) throw new CaravanError('cancelled', 'the import was cancelled');
      if ('value' in raw.content) collected.add(raw.content.value);
      if (collected.sampled >= sampleRows || ++looked >= sampleLimit) break;
    }
  }
  const guess = collected.result();
  // Nothing parses: let the reader name the first bad row.
  if (guess.sampled === 0) return { format: 'messages', notes: [] };
  if (guess.format === null)
    throw new CaravanError(
      'bad_file',
      `no known format has the columns ${guess.columns.map((name) => name.slice(0, 60)).join(', ') || '(none)'}`,
      { place: { file: files[0]! }, mend: 'Map them: --map prompt=COLUMN --map answer=COLUMN.' },
    );
  const notes = [describeGuess(guess)];
  if (guess.share < 1)
    notes.push(
      `format ${guess.format} fits ${(guess.share * 100).toFixed(0)} % of the first ${guess.sampled} rows`,
    );
  return { format: guess.format, notes };
}

function contentHash(text: string): string {
  return hash('sha256', text, 'hex').slice(0, 32);
}

/** What two rows must share to count as duplicates: words and roles, not case or spacing. */
function normalised(messages: readonly Message[]): string {
  return messages.map((m) => `${m.role}\n${sameWords(m.content)}`).join('\n');
}

function sameWords(text: string): string {
  // Single spaces, nearly all there is to match, are left alone.
  return text
    .normalize('NFC')
    .toLowerCase()
    .replace(/\s{2,}|[^\S ]/g, ' ')
    .trim();
}

export async function fileHash(file: string): Promise<Buffer> {
  const digest = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>)
    digest.update(chunk);
  return digest.digest();
}
