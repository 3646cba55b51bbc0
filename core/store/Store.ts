/** Values as SQLite takes and gives them. */
export type SqlValue = string | number | bigint | null | Uint8Array;
export type SqlParams = readonly SqlValue[] | Readonly<Record<string, SqlValue>>;

/** The database of one home. Statements are prepared once and kept; the caller says what its SELECT yields. */
export interface Store {
  readonly file: string;
  readonly sqliteVersion: string;
  /** What opening had to tell people (a backup that was taken, say). */
  readonly notes: readonly string[];
  run(sql: string, params?: SqlParams): { changes: number; lastInsertRowid: number };
  get<R>(sql: string, params?: SqlParams): R | undefined;
  all<R>(sql: string, params?: SqlParams): R[];
  /**
   * All or nothing; nests. The work must not be asynchronous. `durable: false` does not wait for the disk: a power cut may
   * take the last such transactions (never half of one), so it is for what files hold too.
   */
  transaction<T>(work: () => T, options?: { durable: boolean }): T;
  /** A long read, on another thread and a connection of its own. It may call `f32_at(blob, index)`. */
  query<R>(sql: string, params?: SqlParams): Promise<R[]>;
  /** Gives up the disk space that is held back for a full disk. @returns whether there was any left to give. */
  releaseReserve(): boolean;
  close(): Promise<void>;
}
