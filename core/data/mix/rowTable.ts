/**
 * The rows of a mix while it is built. The table `rows` holds every row of every source with its fate and none of its
 * words: these stay in the sources' own files and are read from there, in order, once for each stage that needs them.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { stepsOf } from '../../shared/dataset/cleaning.ts';
import type { Recipe } from '../../shared/dataset/recipe.ts';
import type { Message, RejectReason } from '../../shared/dataset/source.ts';
import { select, sqlString, type Database } from '../database.ts';

export interface SourceFolder {
  dir: string;
  contentHash: string;
}

/** A source's rows and where they stand in the table: [firstId, firstId + rows). */
export interface LoadedSource {
  name: string;
  /** An SQL list of its Parquet files: rows as imported, then those that a `roles` step mends. */
  files: string;
  firstId: number;
  rows: number;
}

export interface RowTable {
  connection: DuckDBConnection;
  /** Reads words, so that the other may be asked while they stream. */
  reader: DuckDBConnection;
  sources: LoadedSource[];
}

/** `rows`: `reason` null means still in. `import_rejects`: what import had set aside already. */
export async function loadRows(
  database: Database,
  recipe: Recipe,
  folders: readonly SourceFolder[],
): Promise<RowTable> {
  const { connection } = database;
  await connection.run(`CREATE TABLE rows (
    id BIGINT, source INTEGER, "row" BIGINT, label VARCHAR, file VARCHAR, line BIGINT, hash VARCHAR, match_hash VARCHAR,
    "group" VARCHAR, tokens INTEGER, target_tokens INTEGER, split VARCHAR, copies INTEGER, reason VARCHAR, detail VARCHAR,
    step VARCHAR)`);
  await connection.run(
    'CREATE TABLE import_rejects (source INTEGER, file VARCHAR, line BIGINT, field VARCHAR, reason VARCHAR, detail VARCHAR)',
  );
  const sources: LoadedSource[] = [];
  let firstId = 0;
  for (const [index, { name }] of recipe.sources.entries()) {
    const { dir } = folders[index]!;
    const mended = join(dir, 'mendable.parquet');
    const mends = stepsOf(recipe, recipe.sources[index]!, index).some(({ step }) => step.step === 'roles');
    const withMended = mends && existsSync(mended);
    const paths = [join(dir, 'rows.parquet'), ...(withMended ? [mended] : [])];
    const files = `[${paths.map(sqlString).join(', ')}]`;
    await connection.run(`INSERT INTO rows
      SELECT ${firstId} + "row", ${index}, "row", label, file, line, hash, match_hash, ${await groupColumn(connection, paths[0]!)},
        NULL, NULL, NULL, 1, NULL, NULL, NULL
      FROM read_parquet(${files}, union_by_name = true) ORDER BY "row"`);
    await connection.run(`INSERT INTO import_rejects
      SELECT ${index}, * FROM read_parquet(${sqlString(join(dir, 'rejects.parquet'))})
      ${withMended ? `WHERE (file, line) NOT IN (SELECT (file, line) FROM read_parquet(${sqlString(mended)}))` : ''}`);
    const [count] = await select<{ n: number }>(
      connection,
      `SELECT count(*) AS n FROM rows WHERE source = ${index}`,
    );
    sources.push({ name, files, firstId, rows: count!.n });
    firstId += count!.n;
  }
  return { connection, reader: await database.connect(), sources };
}

/** Sources imported by an earlier version have no groups. */
async function groupColumn(connection: DuckDBConnection, file: string): Promise<string> {
  const columns = await select<{ column_name: string }>(
    connection,
    `DESCRIBE SELECT * FROM read_parquet(${sqlString(file)})`,
  );
  return columns.some(({ column_name }) => column_name === 'group') ? '"group"' : 'NULL';
}

/** Sets the fate of rows still in. `detail` and `where` are SQL. */
export async function reject(
  connection: DuckDBConnection,
  {
    reason,
    step,
    detail,
    where,
  }: { reason: RejectReason; step: string | null; detail: string; where: string },
): Promise<void> {
  await connection.run(
    `UPDATE rows SET reason = ${sqlString(reason)}, detail = ${detail}, step = ${step === null ? 'NULL' : sqlString(step)}
     WHERE reason IS NULL AND (${where})`,
  );
}

/** Which rows are still in (and fulfil a condition), by id. */
export async function rowsStillIn({ connection, sources }: RowTable, where = 'true'): Promise<Uint8Array> {
  const still = new Uint8Array(sources.reduce((sum, { rows }) => sum + rows, 0));
  const result = await connection.stream(`SELECT id FROM rows WHERE reason IS NULL AND (${where})`);
  for (;;) {
    const chunk = await result.fetchChunk();
    if (!chunk || chunk.rowCount === 0) return still;
    for (const id of chunk.getColumnValues(0) as bigint[]) still[Number(id)] = 1;
  }
}

/** A row with its words. */
export interface TextRow {
  id: number;
  source: number;
  messages: Message[];
}

/** The rows marked in `wanted`, in the order of ids, about `batchRows` at a time. */
export async function* readTexts(
  { reader, sources }: RowTable,
  wanted: Uint8Array,
  batchRows: number,
): AsyncGenerator<TextRow[]> {
  let batch: TextRow[] = [];
  for (const [index, { files, firstId, rows }] of sources.entries()) {
    const own = wanted.subarray(firstId, firstId + rows);
    const first = own.indexOf(1);
    if (first < 0) continue;
    // Row groups before the first and after the last are not even unpacked.
    const result = await reader.stream(
      `SELECT "row", messages FROM read_parquet(${files}, union_by_name = true)
       WHERE "row" BETWEEN ${first} AND ${own.lastIndexOf(1)}`,
    );
    for (;;) {
      const chunk = await result.fetchChunk();
      if (!chunk || chunk.rowCount === 0) break;
      const numbers = chunk.getColumnValues(0) as bigint[];
      const texts = chunk.getColumnValues(1) as string[];
      for (const [at, number] of numbers.entries()) {
        const row = Number(number);
        if (own[row] !== 1) continue;
        batch.push({ id: firstId + row, source: index, messages: JSON.parse(texts[at]!) as Message[] });
        if (batch.length < batchRows) continue;
        yield batch;
        batch = [];
      }
    }
  }
  if (batch.length > 0) yield batch;
}

/** An SQL expression: the name of the source whose number is in `column`. */
export function sourceName(sources: readonly { name: string }[], column: string): string {
  return `list_extract([${sources.map(({ name }) => sqlString(name)).join(', ')}], ${column} + 1)`;
}
