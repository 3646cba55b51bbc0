import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { CaravanError } from '../shared/contract/errors.ts';
import { migrate } from './migrate.ts';
import { createLogSync } from './logSync.ts';
import { createReader } from './reader.ts';
import { backupsOf, moveAside, readVersion, rescueRows } from './rescue.ts';
import type { SqlParams, SqlValue, Store } from './Store.ts';

export type { SqlParams, SqlValue, Store } from './Store.ts';

export interface StoreOptions {
  file: string;
  /** The last host did not close it: check every page. Found out from the write-ahead log too. */
  endedUncleanly?: boolean;
  migrationsDir?: string;
  /** Stops migrating here: for tests that begin with an old database. */
  toVersion?: number;
  /** Tables that hold what files say too, and are filled from those again where the database is damaged. */
  indexTables?: readonly string[];
  /** Disk space held back, so that the last state can be written when the disk is full. */
  reserveBytes?: number;
}

/** The write-ahead log is brought into the file when it is this long. */
const checkpointBytes = 4 * 1024 * 1024;

/** SQLite before this could corrupt a write-ahead log that two connections reset at once. */
const oldestSqlite = [3, 51, 3] as const;

/**
 * Opens (or makes) the database and brings it to this version's schema.
 * A damaged one is moved aside, and a new one made of what can still be read; `notes` of the store say so.
 * @throws `database_newer` where a newer Caravan wrote it; `internal` where a migration fails, with file and version as
 * they were.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { file } = options;
  mkdirSync(dirname(file), { recursive: true });
  const suspect = `${file}.suspect`;
  const unclean = options.endedUncleanly === true || sizeOf(`${file}-wal`) > 0 || existsSync(suspect);
  const migrations = (toVersion = options.toVersion) => ({
    dir: options.migrationsDir ?? fileURLToPath(new URL('migrations/', import.meta.url)),
    ...(toVersion !== undefined && { toVersion }),
  });
  const notes: string[] = [];
  let database: Database.Database | undefined;
  try {
    database = connect(file);
    if (unclean) checkPages(database, file);
    notes.push(...(await migrate(database, file, migrations())));
  } catch (error) {
    database?.close();
    const explained = explain(error, file);
    if (!(explained instanceof DamagedDatabase)) throw explained;
    database = await rebuild(file, explained.what, options.indexTables ?? [], migrations, notes);
  }
  rmSync(suspect, { force: true });
  return wrap(database, file, notes, options.reserveBytes ?? 4 * 1024 * 1024);
}

/** Makes the database anew out of what the damaged one, or the copy before the last update, still holds. */
async function rebuild(
  file: string,
  what: string,
  indexTables: readonly string[],
  migrations: (toVersion?: number) => { dir: string; toVersion?: number },
  notes: string[],
): Promise<Database.Database> {
  const aside = moveAside(file);
  notes.push(`the database was damaged (${what}); it lies in ${aside} now`);
  const version = readVersion(aside);
  let rescued = false;
  const database = connect(file);
  try {
    for (const from of [...(version ? [{ file: aside, version }] : []), ...backupsOf(file)]) {
      await migrate(database, file, migrations(from.version));
      const { kept, lost } = rescueRows(from.file, database, indexTables);
      const counts = [...kept].filter(([, rows]) => rows > 0).map(([table, rows]) => `${rows} of ${table}`);
      if (counts.length === 0) continue;
      notes.push(
        `a new database holds what could be read of ${from.file === aside ? 'it' : `the copy ${from.file}`}: ` +
          `${counts.join(', ')}${lost ? '; the rest is lost' : ''}`,
      );
      rescued = true;
      break;
    }
    if (!rescued) notes.push('nothing could be read of it: import sources and add models again');
    if (indexTables.length > 0) notes.push('runs are read back from their folders');
    await migrate(database, file, migrations());
    return database;
  } catch (error) {
    database.close();
    throw explain(error, file);
  }
}

function connect(file: string): Database.Database {
  let database: Database.Database | undefined;
  try {
    database = new Database(file, { timeout: 5000 });
    const version = database.prepare('SELECT sqlite_version() AS v').pluck().get() as string;
    if (isOlder(version, oldestSqlite))
      throw new CaravanError('missing_dependency', `SQLite ${version} is too old`, {
        mend: `Install better-sqlite3 with SQLite ${oldestSqlite.join('.')} or newer: npm ci`,
      });
    const mode = database.pragma('journal_mode = WAL', { simple: true });
    if (mode !== 'wal')
      throw new CaravanError('bad_file', `the database cannot use a write-ahead log here (${String(mode)})`, {
        place: { file },
        mend: 'Keep the home on a local disk, not a network share: set CARAVAN_HOME.',
      });
    // A commit waits for no disk, which may take 100 ms; createLogSync brings it there right after.
    database.pragma('synchronous = NORMAL');
    database.pragma('foreign_keys = ON');
    database.pragma('busy_timeout = 5000');
    database.pragma('trusted_schema = OFF');
    database.pragma('temp_store = MEMORY');
    database.pragma('journal_size_limit = 8388608');
    // Bringing the log into the file waits for the disk: the reader's thread does that, and this connection only where the
    // log grew to 32 MiB all the same.
    database.pragma('wal_autocheckpoint = 8000');
    return database;
  } catch (error) {
    database?.close();
    throw explain(error, file);
  }
}

function checkPages(database: Database.Database, file: string): void {
  const found = database.pragma('quick_check(1)', { simple: true });
  if (found !== 'ok') throw new DamagedDatabase(file, String(found).split('\n').at(-1)!);
}

/** `bad_file`; the next `openStore` makes the database anew. */
export class DamagedDatabase extends CaravanError {
  readonly what: string;

  constructor(file: string, what: string) {
    super('bad_file', `the database is damaged: ${what}`, {
      place: { file },
      mend: 'Start the workbench again: it then keeps what can still be read, and reads runs back from their folders.',
    });
    this.what = what;
  }
}

function explain(error: unknown, file: string): CaravanError {
  const code = (error as { code?: unknown }).code;
  const message = error instanceof Error ? error.message : String(error);
  if (code === 'SQLITE_NOTADB') return new DamagedDatabase(file, 'it is not an SQLite file');
  if (typeof code === 'string' && code.startsWith('SQLITE_CORRUPT'))
    return new DamagedDatabase(file, message);
  if (code === 'SQLITE_FULL')
    return new CaravanError('disk_full', 'the disk that holds the database is full', {
      place: { file },
      mend: 'Free some space on it and try again.',
      cause: error,
    });
  if (code === 'SQLITE_CANTOPEN' || code === 'SQLITE_READONLY' || code === 'EACCES')
    return new CaravanError('permission_denied', `the database cannot be opened for writing: ${message}`, {
      place: { file },
      mend: 'Make the folder writable, or set CARAVAN_HOME to one that is.',
      cause: error,
    });
  return CaravanError.from(error);
}

function wrap(database: Database.Database, file: string, notes: string[], reserveBytes: number): Store {
  const statements = new Map<string, Database.Statement>();
  const reader = createReader(file);
  const logSync = createLogSync(`${file}-wal`);
  const reserve = `${file}.reserve`;
  let closed = false;
  // A reserve that the disk has no room for is no reserve: leave none half-written.
  const reserved = writeFile(reserve, Buffer.alloc(reserveBytes)).catch(() =>
    rmSync(reserve, { force: true }),
  );

  function prepare(sql: string): Database.Statement {
    let statement = statements.get(sql);
    if (!statement) {
      statement = database.prepare(sql);
      statements.set(sql, statement);
    }
    return statement;
  }

  function releaseReserve(): boolean {
    if (sizeOf(reserve) === 0) return false;
    rmSync(reserve, { force: true });
    return true;
  }

  /** A full disk rolls the transaction back by itself; so the outermost level tries once more with the reserve. */
  function withReserve<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if ((error as { code?: unknown }).code === 'SQLITE_FULL' && !database.inTransaction && releaseReserve())
        return work();
      throw error;
    }
  }

  function explained<T>(work: () => T): T {
    if (database.inTransaction) return work();
    try {
      return withReserve(work);
    } catch (error) {
      if (!String((error as { code?: unknown }).code).startsWith('SQLITE_')) throw error;
      const explained = explain(error, file);
      // The next start looks at every page, and makes the database anew.
      if (explained instanceof DamagedDatabase) writeFileSync(`${file}.suspect`, `${explained.what}\n`);
      throw explained;
    }
  }

  /** What is to be done for a transaction that has just ended. */
  function committed(durable: boolean): void {
    if (database.inTransaction) return;
    if (durable) logSync.request();
    if (sizeOf(`${file}-wal`) > checkpointBytes) reader.checkpoint();
  }

  return {
    file,
    notes,
    sqliteVersion: database.prepare('SELECT sqlite_version() AS v').pluck().get() as string,
    run(sql, params = []) {
      const { changes, lastInsertRowid } = explained(() => prepare(sql).run(bound(params)));
      committed(true);
      return { changes, lastInsertRowid: Number(lastInsertRowid) };
    },
    get<R>(sql: string, params: SqlParams = []) {
      return explained(() => prepare(sql).get(bound(params)) as R | undefined);
    },
    all<R>(sql: string, params: SqlParams = []) {
      return explained(() => prepare(sql).all(bound(params)) as R[]);
    },
    transaction<T>(work: () => T, { durable } = { durable: true }): T {
      const result = explained(() => database.transaction(work).immediate());
      committed(durable);
      return result;
    },
    query: (sql, params = []) => reader.query(sql, params),
    releaseReserve,
    async close() {
      if (closed) return;
      closed = true;
      await reserved;
      await logSync.close();
      await reader.close();
      statements.clear();
      database.pragma('optimize');
      database.close();
      rmSync(reserve, { force: true });
    },
  };
}

function bound(params: SqlParams): SqlValue[] | Record<string, SqlValue> {
  return params as SqlValue[] | Record<string, SqlValue>;
}

function isOlder(version: string, than: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [index, wanted] of than.entries())
    if (parts[index] !== wanted) return (parts[index] ?? 0) < wanted;
  return false;
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
