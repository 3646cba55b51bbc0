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
   * All or nothing; nests. The work must not be asynchronous. No transaction waits for the disk: it is brought there right
   * after, beside the host's thread. A power cut in that moment may take the last ones (never half of one). `durable: false`
   * leaves even that to the next: for what files hold too.
   */
  transaction<T>(work: () => T, options?: { durable: boolean }): T;
  /** A long read, on another thread and a connection of its own. It may call `f32_at(blob, index)`. */
  query<R>(sql: string, params?: SqlParams): Promise<R[]>;
  /** Gives up the disk space that is held back for a full disk. @returns whether there was any left to give. */
  releaseReserve(): boolean;
  close(): Promise<void>;
}
