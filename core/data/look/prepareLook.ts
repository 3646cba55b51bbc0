/**
 * The index behind a table of rows: a DuckDB file with what a table shows, sorts and filters by, and beginnings of the
 * texts. It is a copy for speed and can be made again from the dataset at any time; keys are row numbers of the file.
 */
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { CaravanError } from '../../shared/contract/errors.ts';
import { openInstance, select, sqlString } from '../database.ts';
import type { Report, RequestParams, RequestResult } from '../protocol.ts';

/** Characters of a question or answer that the index holds. */
const previewChars = 240;
/** Holds a million narrow rows; the sort by key spills beyond it. */
const memoryLimit = '768MB';
/** How often progress is told and cancelling noticed. */
const lookEveryMs = 100;

export async function prepareLook(
  { kind, rows, rejects, out }: RequestParams<'prepareLook'>,
  report: Report,
  cancelled: AbortSignal,
): Promise<RequestResult<'prepareLook'>> {
  const partial = `${out}.partial`;
  await mkdir(dirname(out), { recursive: true });
  await rm(partial, { force: true });
  const instance = await openInstance(partial, memoryLimit, 2);
  try {
    const connection = await instance.connect();
    const source = `read_parquet(${sqlString(rows)})`;
    const columns = await columnsOf(connection, source);
    const [{ n: total } = { n: 0 }] = await select<{ n: number }>(
      connection,
      `SELECT count(*) AS n FROM ${source}`,
    );
    const share = (done: number) =>
      report({ done: Math.floor(done * total), total, unit: 'rows', stage: 'preparing rows' });
    await runWatched(connection, indexRows(kind, rows, columns), share, cancelled, 'preparing the rows');
    const set = `read_parquet(${sqlString(rejects)}, file_row_number = true)`;
    const from =
      kind === 'mix'
        ? 'source, source_row AS "sourceRow"'
        : `NULL::VARCHAR AS source, NULL::BIGINT AS "sourceRow"`;
    await connection.run(`CREATE TABLE rejects AS
      SELECT file_row_number AS key, ${from}, file, line, field, reason, detail FROM ${set} ORDER BY key`);
    const [{ n: set_aside } = { n: 0 }] = await select<{ n: number }>(
      connection,
      'SELECT count(*) AS n FROM rejects',
    );
    await connection.run('CHECKPOINT');
    connection.closeSync();
    instance.closeSync();
    await rename(partial, out);
    return { rows: total, rejects: set_aside };
  } catch (error) {
    instance.closeSync();
    await Promise.all([partial, `${partial}.wal`].map((file) => rm(file, { force: true })));
    throw error;
  }
}

function indexRows(kind: 'source' | 'mix', file: string, columns: ReadonlySet<string>): string {
  const source = `read_parquet(${sqlString(file)}, file_row_number = true)`;
  const match = columns.has('match_hash') ? 'match_hash' : 'hash';
  const own =
    kind === 'mix'
      ? `split, "row", source, source_row AS "sourceRow", label, file, line, hash, tokens, target_tokens AS "targetTokens"`
      : `NULL::VARCHAR AS split, "row", NULL::VARCHAR AS source, NULL::BIGINT AS "sourceRow", label, file, line, hash,
         NULL::INTEGER AS tokens, NULL::INTEGER AS "targetTokens"`;
  const begin = (role: string) =>
    `left(coalesce(list_filter(m, x -> x.role = '${role}')[-1].content, ''), ${previewChars})`;
  const chars = (test: string) =>
    `coalesce(list_sum(list_transform(list_filter(m, x -> x.role ${test} 'assistant'), x -> length(x.content))), 0)::INTEGER`;
  return `CREATE TABLE rows AS
    SELECT file_row_number AS key, ${own}, len(list_filter(m, x -> x.role = 'assistant'))::INTEGER AS turns,
      coalesce(m[1].role = 'system', false) AS system, ${chars('<>')} AS "promptChars", ${chars('=')} AS "answerChars",
      first.key IS NOT NULL AND first.key <> file_row_number AS duplicate,
      CASE WHEN first.key <> file_row_number THEN first.key END AS "duplicateOf",
      ${begin('user')} AS prompt, ${begin('assistant')} AS answer
    FROM (SELECT *, ${match} AS match, from_json(messages, '[{"role":"VARCHAR","content":"VARCHAR"}]') AS m FROM ${source})
    LEFT JOIN (SELECT ${match} AS match, min(file_row_number) AS key FROM ${source} GROUP BY ALL HAVING count(*) > 1) AS first
      USING (match)
    ORDER BY key`;
}

/** Runs one long statement: tells how far it is, and ends it when asked. */
export async function runWatched(
  connection: DuckDBConnection,
  sql: string,
  onShare: (share: number) => void,
  cancelled: AbortSignal,
  what: string,
): Promise<void> {
  const timer = setInterval(() => {
    if (cancelled.aborted) connection.interrupt();
    const { percentage } = connection.progress;
    if (percentage >= 0) onShare(percentage / 100);
  }, lookEveryMs);
  try {
    await connection.run(sql);
  } catch (error) {
    if (cancelled.aborted) throw new CaravanError('cancelled', `${what} was cancelled`);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

async function columnsOf(connection: DuckDBConnection, source: string): Promise<ReadonlySet<string>> {
  const columns = await select<{ column_name: string }>(connection, `DESCRIBE SELECT * FROM ${source}`);
  return new Set(columns.map(({ column_name }) => column_name));
}
