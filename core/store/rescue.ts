import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import Database from 'better-sqlite3';

export interface Rescued {
  /** Where the damaged database lies now. */
  aside: string;
  /** Rows that could be read, by table. */
  kept: Map<string, number>;
  /** Whether reading any table came upon damage, so that rows are missing. */
  lost: boolean;
}

/** Moves a database with its log out of the way. @returns its new place, the first of `FILE.damaged-N` that is free */
export function moveAside(file: string): string {
  let aside: string;
  for (let n = 1; existsSync((aside = `${file}.damaged-${n}`)); n++);
  // SQLite finds a log by the name of its database.
  for (const suffix of ['-wal', '-shm', ''])
    if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix);
  return aside;
}

/** The schema's version of a damaged database; null where not even that can be read. */
export function readVersion(file: string): number | null {
  try {
    const damaged = new Database(file, { readonly: true });
    try {
      return damaged.pragma('user_version', { simple: true }) as number;
    } finally {
      damaged.close();
    }
  } catch {
    return null;
  }
}

/** The copies that were made before migrations, newest first. */
export function backupsOf(file: string): { file: string; version: number }[] {
  const pattern = /\.bak-v(\d+)$/;
  return readdirSync(dirname(file))
    .filter((name) => name.startsWith(basename(file)) && pattern.test(name))
    .map((name) => ({ file: join(dirname(file), name), version: Number(pattern.exec(name)![1]) }))
    .sort((a, b) => b.version - a.version);
}

/**
 * Copies what can still be read of a damaged database into a new one of the same schema: each table from its start to the
 * first damage, behind it, and from its end.
 * @param except tables that are not copied, because what they hold is read from files again
 */
export function rescueRows(
  file: string,
  into: Database.Database,
  except: readonly string[],
): Omit<Rescued, 'aside'> {
  const damaged = new Database(file, { readonly: true });
  const kept = new Map<string, number>();
  let lost = false;
  const tables = into
    .prepare(
      "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .all() as { name: string; wr: 0 | 1 }[];
  into.pragma('foreign_keys = OFF');
  try {
    into.transaction(() => {
      for (const { name, wr } of tables) {
        if (except.includes(name)) continue;
        const columns = into.pragma(`table_info(${name})`) as { name: string; pk: number }[];
        const names = columns.map((column) => column.name).join(', ');
        const insert = into.prepare(
          `INSERT OR IGNORE INTO ${name} (${names}) VALUES (${columns.map(() => '?').join(', ')})`,
        );
        let count = 0;
        const keep = (row: unknown[]) => {
          try {
            count += insert.run(row).changes;
          } catch {
            // A value that the column cannot have: it was read out of a damaged page.
            lost = true;
          }
        };
        const key = columns.filter(({ pk }) => pk > 0).toSorted((a, b) => a.pk - b.pk);
        const whole = wr
          ? readByKey(
              damaged,
              name,
              names,
              key.map((column) => column.name),
              keep,
            )
          : readByRowid(damaged, name, names, keep);
        lost ||= !whole;
        kept.set(name, count);
      }
      if (lost)
        dropOrphans(
          into,
          tables.map(({ name }) => name),
        );
    })();
  } finally {
    into.pragma('foreign_keys = ON');
    damaged.close();
    // Reading makes these, and reading alone does not remove them.
    if ((statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0) === 0)
      for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true });
  }
  return { kept, lost };
}

/** @returns whether no damage was met */
function readByRowid(
  damaged: Database.Database,
  table: string,
  columns: string,
  keep: (row: unknown[]) => void,
): boolean {
  const last = attempt(
    () => damaged.prepare(`SELECT max(rowid) FROM ${table}`).pluck().get() as number | null,
  );
  const select = (direction: 'ASC' | 'DESC') =>
    damaged
      .prepare(
        `SELECT rowid, ${columns} FROM ${table} NOT INDEXED WHERE rowid > ? AND rowid < ? ORDER BY rowid ${direction}`,
      )
      .raw();
  const rows = attempt(() => ({ up: select('ASC'), down: select('DESC') }));
  if (!rows) return false;
  let whole = true;
  let read = -1;
  const readOn = (from: number) => {
    for (const row of rows.up.iterate(from, Number.MAX_SAFE_INTEGER) as Iterable<[number, ...unknown[]]>) {
      // Behind a step over damage lie rows that the step passed.
      if (from > read) readBack(read, row[0]);
      from = read = row[0];
      keep(row.slice(1));
    }
  };
  const readBack = (from: number, to: number) =>
    attempt(() => {
      for (const row of rows.down.iterate(from, to) as Iterable<[number, ...unknown[]]>) keep(row.slice(1));
    });
  // Where the next whole page begins is unknown, so the steps over a damaged one grow until one finds rows.
  for (let step = 0; read + step <= (last ?? 0);) {
    const before = read;
    if (attempt(() => (readOn(read + step), true))) break;
    whole = false;
    step = read > before || step === 0 ? 1 : step * 2;
  }
  return whole && last !== undefined;
}

/** A table without rowids: from both ends. @returns whether no damage was met */
function readByKey(
  damaged: Database.Database,
  table: string,
  columns: string,
  key: string[],
  keep: (row: unknown[]) => void,
): boolean {
  const from = (direction: 'ASC' | 'DESC') =>
    attempt(() => {
      const order = key.map((name) => `${name} ${direction}`).join(', ');
      const select = damaged.prepare(`SELECT ${columns} FROM ${table} ORDER BY ${order}`).raw();
      for (const row of select.iterate() as Iterable<unknown[]>) keep(row);
      return true;
    });
  if (from('ASC')) return true;
  from('DESC');
  return false;
}

/** Rows that point to rows which are gone, and those that point to them. */
function dropOrphans(database: Database.Database, tables: readonly string[]): void {
  let dropped: number;
  do {
    dropped = 0;
    for (const table of tables) {
      const references = database.pragma(`foreign_key_list(${table})`) as {
        table: string;
        from: string;
        to: string;
      }[];
      for (const { table: parent, from, to } of references)
        dropped += database
          .prepare(
            `DELETE FROM ${table} WHERE ${from} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ${parent} p WHERE p.${to} = ${table}.${from})`,
          )
          .run().changes;
    }
  } while (dropped > 0);
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
