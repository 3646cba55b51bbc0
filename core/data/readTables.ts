import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Message, RejectedRow } from '../shared/dataset/source.ts';
import { openDatabase, select, sqlString } from './database.ts';
import { contaminationFile } from './mix/decontaminate.ts';
import type { RequestParams, RequestResult } from './protocol.ts';

/** Enough for one page of rows; windows over a table never need more. */
const pageMemory = '512MB';

async function query<R>(sql: string, values: Record<string, number | string>): Promise<R[]> {
  const database = await openDatabase('', pageMemory);
  try {
    return await select<R>(database.connection, sql, values);
  } finally {
    database.close();
  }
}

type WithJson<R> = Omit<R, 'messages'> & { messages: string };

function parseMessages<R extends { messages: Message[] }>(rows: WithJson<R>[]): R[] {
  return rows.map((row) => ({ ...row, messages: JSON.parse(row.messages) as Message[] }) as unknown as R);
}

type SourceRows = RequestResult<'readSourceRows'>;

export async function readSourceRows({
  dir,
  after,
  limit,
}: RequestParams<'readSourceRows'>): Promise<SourceRows> {
  const rows = await query<WithJson<SourceRows[number]>>(
    `SELECT "row", label, line, hash, messages FROM read_parquet(${sqlString(join(dir, 'rows.parquet'))})
     WHERE "row" > $after ORDER BY "row" LIMIT ${limit}`,
    { after },
  );
  return parseMessages<SourceRows[number]>(rows);
}

/** Rejects have no key of their own: their number in the file is it. */
export function readRejects({ dir, after, limit }: RequestParams<'readRejects'>): Promise<RejectedRow[]> {
  return query<RejectedRow>(
    `SELECT file, line, field, reason, detail
     FROM read_parquet(${sqlString(join(dir, 'rejects.parquet'))}, file_row_number = true)
     WHERE file_row_number > $after ORDER BY file_row_number LIMIT ${limit}`,
    { after },
  );
}

type MixRows = RequestResult<'readMixRows'>;

export async function readMixRows({
  dir,
  split,
  after,
  limit,
}: RequestParams<'readMixRows'>): Promise<MixRows> {
  const rows = await query<WithJson<MixRows[number]>>(
    `SELECT "row", source, label, line, hash, messages, tokens FROM read_parquet(${sqlString(join(dir, 'mix.parquet'))})
     WHERE split = $split AND "row" > $after ORDER BY "row" LIMIT ${limit}`,
    { split, after },
  );
  return parseMessages<MixRows[number]>(rows);
}

type MixRowsAt = RequestResult<'readMixRowsAt'>;

export async function readMixRowsAt({
  dir,
  split,
  rows,
}: RequestParams<'readMixRowsAt'>): Promise<MixRowsAt> {
  if (rows.length === 0) return [];
  const found = await query<WithJson<MixRowsAt[number]>>(
    `SELECT "row", source, messages, tokens, source_row AS "sourceRow", file, line, hash FROM read_parquet(${sqlString(join(dir, 'mix.parquet'))})
     WHERE split = $split AND "row" IN (${rows.map((row) => Math.trunc(row)).join(', ')})`,
    { split },
  );
  const byRow = new Map(parseMessages<MixRowsAt[number]>(found).map((row) => [row.row, row]));
  return rows.flatMap((row) => byRow.get(row) ?? []);
}

type MixRejects = RequestResult<'readMixRejects'>;

export function readMixRejects({
  dir,
  after,
  limit,
  source,
  reason,
  step,
}: RequestParams<'readMixRejects'>): Promise<MixRejects> {
  const conditions = Object.entries({ source, reason, step }).flatMap(([column, value]) =>
    value === undefined ? [] : [`AND ${column} = ${sqlString(value)}`],
  );
  return query<MixRejects[number]>(
    `SELECT file_row_number AS reject, source, source_row AS "sourceRow", file, line, field, reason, detail, step
     FROM read_parquet(${sqlString(join(dir, 'rejects.parquet'))}, file_row_number = true)
     WHERE file_row_number > $after ${conditions.join(' ')} ORDER BY file_row_number LIMIT ${limit}`,
    { after },
  );
}

type Contamination = RequestResult<'readContamination'>;
type Spans = Contamination[number]['rowSpans'];

/** None where the mix was built without benchmarks. */
export async function readContamination({
  dir,
  after,
  limit,
  benchmark,
  split,
}: RequestParams<'readContamination'>): Promise<Contamination> {
  const file = join(dir, contaminationFile);
  if (!existsSync(file)) return [];
  const conditions = Object.entries({ benchmark, split }).flatMap(([column, value]) =>
    value === undefined ? [] : [`AND ${column} = ${sqlString(value)}`],
  );
  const rows = await query<
    Omit<Contamination[number], 'rowSpans' | 'itemSpans'> & { rowSpans: string; itemSpans: string }
  >(
    `SELECT "match", source, source_row AS "sourceRow", file, line, benchmark, split, item, item_file AS "itemFile",
       item_line AS "itemLine", row_part AS "rowPart", item_part AS "itemPart", kind, words, coverage, dropped,
       row_text AS "rowText", row_spans AS "rowSpans", item_text AS "itemText", item_spans AS "itemSpans"
     FROM read_parquet(${sqlString(file)}) WHERE "match" > $after ${conditions.join(' ')} ORDER BY "match" LIMIT ${limit}`,
    { after },
  );
  return rows.map((row) => ({
    ...row,
    rowSpans: JSON.parse(row.rowSpans) as Spans,
    itemSpans: JSON.parse(row.itemSpans) as Spans,
  }));
}
