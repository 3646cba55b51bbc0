import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';

/** Work of one request: an in-memory database that spills into `scratchDir` beyond its memory limit. */
export interface Database {
  connection: DuckDBConnection;
  /** Another one to the same tables: a result that streams holds its connection. */
  connect(): Promise<DuckDBConnection>;
  close(): void;
}

/** DuckDB that may neither load extensions nor reach the network, and keeps the order of rows unless `more` says else. */
export function openInstance(
  path: string,
  memoryLimit: string,
  threads: number,
  more: Record<string, string> = {},
): Promise<DuckDBInstance> {
  return DuckDBInstance.create(path, {
    memory_limit: memoryLimit,
    threads: String(threads),
    preserve_insertion_order: 'true',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    ...more,
  });
}

/** One thread and insertion order kept: so that every file written depends on its input alone. */
export async function openDatabase(scratchDir: string, memoryLimit: string): Promise<Database> {
  const instance = await openInstance(':memory:', memoryLimit, 1, { temp_directory: scratchDir });
  const connections = [await instance.connect()];
  return {
    connection: connections[0]!,
    async connect() {
      const another = await instance.connect();
      connections.push(another);
      return another;
    },
    close() {
      for (const connection of connections) connection.closeSync();
      instance.closeSync();
    },
  };
}

/** A string as an SQL literal, for the places where DuckDB takes no parameter (file names of COPY and read_parquet). */
export function sqlString(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export type Cell = string | number | boolean | null;

/** Rows of a query as objects; 64-bit integers come as numbers (all of ours are counts and row numbers below 2^53). */
export async function select<R>(
  connection: DuckDBConnection,
  sql: string,
  values: Record<string, Cell> = {},
): Promise<R[]> {
  const reader = await connection.runAndReadAll(sql, values);
  return reader.getRowObjectsJS().map((row) => {
    for (const key of Object.keys(row)) if (typeof row[key] === 'bigint') row[key] = Number(row[key]);
    return row as R;
  });
}
