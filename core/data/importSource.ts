import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CaravanError } from '../shared/contract/errors.ts';
import type { ColumnMapping, Message, RejectReason, SourceFormat } from '../shared/dataset/source.ts';
import { openDatabase, select, sqlString } from './database.ts';
import { detectFormat, readRow } from './formats/formats.ts';
import { readRawRows } from './formats/rawRows.ts';
import type { Report } from './protocol.ts';

export interface ImportRequest {
  files: string[];
  format: SourceFormat;
  mapping?: ColumnMapping | undefined;
  /** Receives rows.parquet and rejects.parquet; it must not exist yet. */
  outDir: string;
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

/** Rows that the format is guessed from. */
const sampleRows = 200;

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
  const guess =
    request.format === 'auto' ? await guessFormat(request.files) : { format: request.format, notes: [] };
  const scratch = `${request.outDir}.partial`;
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), request.memoryLimit);
  try {
    const { connection } = database;
    await connection.run(
      'CREATE TABLE rows ("row" BIGINT, label VARCHAR, file VARCHAR, line BIGINT, hash VARCHAR, match_hash VARCHAR, messages VARCHAR)',
    );
    await connection.run(
      'CREATE TABLE rejects (file VARCHAR, line BIGINT, field VARCHAR, reason VARCHAR, detail VARCHAR)',
    );
    const rows = await connection.createAppender('rows');
    const rejects = await connection.createAppender('rejects');
    const labels: Record<string, number> = {};
    const rejectedByReason: Partial<Record<RejectReason, number>> = {};
    let kept = 0;
    let rejected = 0;
    let doneBytes = 0;
    for (const [index, file] of request.files.entries()) {
      // Names, not paths: what an import writes does not depend on where its files lie.
      const name = basename(file);
      for await (const raw of readRawRows(file)) {
        if (cancelled.aborted) throw new CaravanError('cancelled', 'the import was cancelled');
        const result =
          'problem' in raw.content ? raw.content : readRow(raw.content.value, guess.format, request.mapping);
        if ('problem' in result) {
          const { reason, field, detail } = result.problem;
          rejects.appendVarchar(name);
          rejects.appendBigInt(BigInt(raw.line));
          if (field === null) rejects.appendNull();
          else rejects.appendVarchar(field);
          rejects.appendVarchar(reason);
          rejects.appendVarchar(detail);
          rejects.endRow();
          rejectedByReason[reason] = (rejectedByReason[reason] ?? 0) + 1;
          rejected++;
        } else {
          const { label, messages } = result.row;
          const json = JSON.stringify(messages);
          rows.appendBigInt(BigInt(kept));
          rows.appendVarchar(label);
          rows.appendVarchar(name);
          rows.appendBigInt(BigInt(raw.line));
          rows.appendVarchar(contentHash(json));
          rows.appendVarchar(contentHash(normalised(messages)));
          rows.appendVarchar(json);
          rows.endRow();
          labels[label] = (labels[label] ?? 0) + 1;
          kept++;
        }
        if ((kept + rejected) % 1000 === 0)
          report({ done: doneBytes + raw.endByte, total: bytes, unit: 'bytes', stage: 'reading' });
      }
      doneBytes += sizes[index]!;
      report({ done: doneBytes, total: bytes, unit: 'bytes', stage: 'reading' });
    }
    rows.closeSync();
    rejects.closeSync();
    if (kept === 0) {
      const first = (
        await select<{ file: string; line: number; field: string | null; reason: string; detail: string }>(
          connection,
          'SELECT * FROM rejects LIMIT 1',
        )
      )[0];
      throw new CaravanError(
        'no_rows',
        first
          ? `not one of ${rejected} rows could be read as ${guess.format}; the first: ${first.reason}: ${first.detail}`
          : 'the file holds no rows',
        {
          place: {
            file: first
              ? (request.files.find((file) => basename(file) === first.file) ?? first.file)
              : request.files[0]!,
            ...(first && { line: first.line }),
            ...(first?.field && { field: first.field }),
          },
          mend: 'Check the file, or say what it is with --format or --map.',
        },
      );
    }
    await connection.run(
      `COPY (SELECT * FROM rows ORDER BY "row") TO ${sqlString(join(scratch, 'rows.parquet'))} (FORMAT parquet, COMPRESSION zstd)`,
    );
    await connection.run(
      `COPY rejects TO ${sqlString(join(scratch, 'rejects.parquet'))} (FORMAT parquet, COMPRESSION zstd)`,
    );
    const hash = createHash('sha256');
    for (const file of request.files) hash.update(await fileHash(file));
    database.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rename(scratch, request.outDir);
    return {
      format: guess.format,
      notes: guess.notes,
      rowsIn: kept + rejected,
      rows: kept,
      rejected,
      rejectedByReason: rejectedByReason as Record<string, number>,
      labels,
      bytes,
      contentHash: hash.digest('hex'),
    };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
}

async function fileSize(file: string): Promise<number> {
  try {
    const info = await stat(file);
    if (!info.isFile()) throw new CaravanError('bad_file', 'this is not a file', { place: { file } });
    if (info.size === 0) throw new CaravanError('no_rows', 'the file is empty', { place: { file } });
    return info.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new CaravanError('not_found', 'there is no such file', { place: { file } });
    throw error;
  }
}

async function guessFormat(
  files: string[],
): Promise<{ format: Exclude<SourceFormat, 'auto'>; notes: string[] }> {
  const samples: unknown[] = [];
  for (const file of files) {
    for await (const raw of readRawRows(file)) {
      if ('value' in raw.content) samples.push(raw.content.value);
      if (samples.length >= sampleRows) break;
    }
    if (samples.length >= sampleRows) break;
  }
  const { format, columns, share } = detectFormat(samples);
  if (samples.length === 0) {
    // Nothing parses: let the reader name the first bad row.
    return { format: 'messages', notes: [] };
  }
  if (format === null)
    throw new CaravanError('bad_file', `no known format has the columns ${columns.join(', ') || '(none)'}`, {
      place: { file: files[0]! },
      mend: 'Map them: --map prompt=COLUMN --map answer=COLUMN.',
    });
  const notes =
    share < 1
      ? [`format ${format} fits ${(share * 100).toFixed(0)} % of the first ${samples.length} rows`]
      : [];
  return { format, notes };
}

function contentHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

/** What two rows must share to count as duplicates: words and roles, not case or spacing. */
function normalised(messages: readonly Message[]): string {
  return messages
    .map((m) => `${m.role}\n${m.content.normalize('NFC').toLowerCase().replace(/\s+/g, ' ').trim()}`)
    .join('\n');
}

export async function fileHash(file: string): Promise<Buffer> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>)
    hash.update(chunk);
  return hash.digest();
}
