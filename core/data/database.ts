import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';

/** Work of one request: an in-memory database that spills into `scratchDir` beyond its memory limit. */
export interface Database {
  connection: DuckDBConnection;
  /** Another one to the same tables: a result that streams holds its connection. */
  connect(): Promise<DuckDBConnection>;
  close(): void;
}

/**
 * One thread and insertion order kept: so that every file written depends on its input alone. DuckDB may neither load
 * extensions nor reach the network.
 */
export async function openDatabase(scratchDir: string, memoryLimit: string): Promise<Database> {
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: memoryLimit,
    threads: '1',
    temp_directory: scratchDir,
    preserve_insertion_order: 'true',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
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
