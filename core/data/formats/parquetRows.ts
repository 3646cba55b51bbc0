/** Rows of a Parquet file as a stream; a row that cannot be decoded is named and the others read. */
import { openDatabase, select, sqlString, type Database } from '../database.ts';
import { DamagedFile } from './pieces.ts';
import { badRow, maxRowBytes, tooLong, type RawRow } from './rawRow.ts';
import { parseRow } from './jsonRows.ts';

/** Holds one row group's columns as they lie in the file, and DuckDB's pieces of them. */
const readMemory = '1GB';
/** Rows that are tried one by one, around one that cannot be decoded. */
const windowRows = 2048;
/** Beyond so many undecodable rows the file is named as a whole. */
const maxBadRows = 1000;

/**
 * @param wanted columns that formats know; where the file has none of them all are read, so that they can be told
 * @throws {@link DamagedFile} where there is no readable Parquet at all
 */
export async function* readParquetRows(
  path: string,
  wanted: ReadonlySet<string>,
  onRead: (rows: number, total: number) => void,
): AsyncGenerator<RawRow> {
  const database = await openDatabase('', readMemory);
  try {
    const file = await openTable(database, path, wanted);
    let next = 0;
    let bad = 0;
    let lastError = '';
    while (next < file.rows) {
      if (bad > maxBadRows) {
        for (; next < file.rows; next++) yield badRow(next + 1, 'damaged_file', lastError);
        break;
      }
      const from = next;
      try {
        for await (const rows of stream(database, file.sql, from)) {
          for (const row of rows) {
            next++;
            yield row;
          }
          onRead(next, file.rows);
        }
        if (next < file.rows) throw new Error(`the file promises ${file.rows} rows and holds ${next}`);
      } catch (error) {
        lastError = firstLine(error);
        const end = Math.min(next + windowRows, file.rows);
        for await (const row of readAround(database, file.sql, next, end)) {
          if ('problem' in row.content && row.content.problem.reason === 'damaged_file') bad++;
          yield row;
        }
        next = end;
      }
    }
  } finally {
    database.close();
  }
}

async function openTable(
  { connection }: Database,
  path: string,
  wanted: ReadonlySet<string>,
): Promise<{ rows: number; sql: string }> {
  // In DuckDB's file names these three have a meaning.
  const file = sqlString(path.replace(/[[*?]/g, '[$&]'));
  try {
    const [count] = await select<{ n: number }>(
      connection,
      `SELECT num_rows AS n FROM parquet_file_metadata(${file})`,
    );
    const table = `read_parquet(${file}, file_row_number = true, binary_as_string = true)`;
    const described = await select<{ column_name: string }>(connection, `DESCRIBE SELECT * FROM ${table}`);
    const names = described
      .map(({ column_name }) => column_name)
      .filter((name) => name !== 'file_row_number');
    const known = names.filter((name) => wanted.has(name));
    const read = known.length > 0 ? known : names.slice(0, 100);
    const fields = read.map((name) => `${sqlString(name)}: "${name.replaceAll('"', '""')}"`).join(', ');
    return {
      rows: count!.n,
      sql: `SELECT file_row_number, to_json({${fields}})::VARCHAR FROM ${table} WHERE file_row_number >= `,
    };
  } catch (error) {
    throw new DamagedFile(`the Parquet file cannot be read: ${firstLine(error)}`);
  }
}

async function* stream({ connection }: Database, sql: string, from: number): AsyncGenerator<RawRow[]> {
  const result = await connection.stream(`${sql}${from}`);
  for (;;) {
    const chunk = await result.fetchChunk();
    if (!chunk || chunk.rowCount === 0) return;
    const numbers = chunk.getColumnValues(0) as bigint[];
    const texts = chunk.getColumnValues(1) as string[];
    yield numbers.map((number, index) => toRow(Number(number) + 1, texts[index]!));
  }
}

/** Halves the window until what cannot be decoded stands alone. */
async function* readAround(
  database: Database,
  sql: string,
  from: number,
  to: number,
): AsyncGenerator<RawRow> {
  try {
    const reader = await database.connection.runAndReadAll(`${sql}${from} AND file_row_number < ${to}`);
    const rows = reader.getRows() as [bigint, string][];
    if (rows.length !== to - from) throw new Error('the file ends before the rows that it promises');
    yield* rows.map(([number, text]) => toRow(Number(number) + 1, text));
  } catch (error) {
    if (to - from === 1) {
      const detail = firstLine(error);
      yield badRow(
        from + 1,
        /utf-?8|string encoding/i.test(detail) ? 'invalid_utf8' : 'damaged_file',
        detail,
      );
      return;
    }
    const middle = (from + to) >> 1;
    yield* readAround(database, sql, from, middle);
    yield* readAround(database, sql, middle, to);
  }
}

function toRow(line: number, text: string): RawRow {
  const bytes = Buffer.from(text);
  return bytes.length > maxRowBytes ? tooLong(line) : parseRow(bytes, line);
}

/** DuckDB's words, without the file's path: what is written depends on no place. */
function firstLine(error: unknown): string {
  return (error as Error).message.split('\n')[0]!.replace(/"[^"]*[\\/][^"]*"/g, 'the file');
}
