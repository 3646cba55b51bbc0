import { readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Database } from 'better-sqlite3';
import { CaravanError } from '../shared/contract/errors.ts';

interface Migration {
  version: number;
  name: string;
  sql: string;
}

/**
 * Applies the migrations that the file lacks, in order, each in a transaction that also sets `user_version`. The file is
 * copied first, so that even a migration that succeeds and was wrong loses nothing.
 * @returns what there is to tell people.
 */
export async function migrate(
  database: Database,
  file: string,
  options: { dir: string; toVersion?: number },
): Promise<string[]> {
  const migrations = readMigrations(options.dir);
  const newest = migrations.length;
  const version = database.pragma('user_version', { simple: true }) as number;
  if (version > newest)
    throw new CaravanError(
      'database_newer',
      `the database is of version ${version}; this Caravan knows up to ${newest}`,
      { place: { file }, mend: 'Update Caravan, or set CARAVAN_HOME to another folder.' },
    );
  const pending = migrations.slice(version, options.toVersion ?? newest);
  if (pending.length === 0) return [];
  const notes: string[] = [];
  if (version > 0) {
    const copy = `${file}.bak-v${version}`;
    await database.backup(`${copy}.partial`);
    renameSync(`${copy}.partial`, copy);
    notes.push(
      `the database was brought from version ${version} to ${pending.at(-1)!.version}; a copy of the old one is ${copy}`,
    );
  }
  // Rebuilding a table drops it, which would cascade; references are checked before each commit instead.
  database.pragma('foreign_keys = OFF');
  try {
    for (const migration of pending) apply(database, file, migration);
  } finally {
    database.pragma('foreign_keys = ON');
  }
  return notes;
}

function apply(database: Database, file: string, { version, name, sql }: Migration): void {
  database.exec('BEGIN IMMEDIATE');
  try {
    database.exec(sql);
    const broken = database.pragma('foreign_key_check') as { table: string }[];
    if (broken.length > 0) throw new Error(`rows of ${broken[0]!.table} point to nothing`);
    database.pragma(`user_version = ${version}`);
    database.exec('COMMIT');
  } catch (error) {
    if (database.inTransaction) database.exec('ROLLBACK');
    throw new CaravanError('internal', `migration ${name} failed: ${(error as Error).message}`, {
      place: { file },
      mend: `The database is unchanged at version ${version - 1}; use the Caravan that wrote it, and report this.`,
      cause: error,
    });
  }
}

function readMigrations(dir: string): Migration[] {
  const files = readdirSync(dir)
    .filter((name) => name.endsWith('.sql'))
    .sort();
  return files.map((name, index) => {
    const version = Number(/^(\d{4})_[a-z0-9_]+\.sql$/.exec(name)?.[1]);
    if (version !== index + 1)
      throw new CaravanError(
        'internal',
        `migrations must be named 0001_name.sql, 0002_name.sql, …: ${name}`,
        {
          place: { file: join(dir, name) },
        },
      );
    return { version, name, sql: readFileSync(join(dir, name), 'utf8') };
  });
}
