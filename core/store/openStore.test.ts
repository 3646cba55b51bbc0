import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fileURLToPath } from 'node:url';
import { openStore, type Store } from './openStore.ts';

let dir: string;
let file: string;
let open: Store[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'store-'));
  file = join(dir, 'caravan.db');
});
afterEach(async () => {
  for (const store of open) await store.close();
  open = [];
  rmSync(dir, { recursive: true, force: true });
});

async function opened(...args: Parameters<typeof openStore>): Promise<Store> {
  const store = await openStore(...args);
  open.push(store);
  return store;
}

const shippedDir = fileURLToPath(new URL('migrations/', import.meta.url));
const shipped = readdirSync(shippedDir);
const numbered = (n: number) => String(shipped.length + n).padStart(4, '0');

/** A folder of migrations: those that are shipped, then these. */
function migrations(...later: string[]): string {
  const folder = mkdtempSync(join(dir, 'migrations-'));
  for (const name of shipped) writeFileSync(join(folder, name), readFileSync(join(shippedDir, name)));
  for (const [index, sql] of later.entries())
    writeFileSync(join(folder, `${numbered(index + 1)}_later.sql`), sql);
  return folder;
}

const insertThread = `INSERT INTO threads (id, title, model, created_at, updated_at) VALUES ('t', 'Talk', 'demo', 1, 1)`;

test('sets every pragma that keeps writes whole and waits for no disk', async () => {
  const store = await opened({ file });
  store.run(insertThread);
  const pragma = (name: string) => Object.values(store.get<object>(`PRAGMA ${name}`)!)[0] as unknown;
  expect(pragma('journal_mode')).toBe('wal');
  expect(pragma('synchronous')).toBe(1);
  expect(pragma('foreign_keys')).toBe(1);
  expect(pragma('busy_timeout') ?? 5000).toBe(5000);
});

test('every table is STRICT, so a wrong type is refused', async () => {
  const store = await opened({ file });
  const tables = store.all<{ name: string; strict: number }>(
    `SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'`,
  );
  expect(tables.map((table) => table.name)).toContain('threads');
  expect(tables.filter((table) => table.strict !== 1)).toEqual([]);
  expect(() => store.run(`UPDATE threads SET created_at = 'noon'`)).not.toThrow();
  store.run(insertThread);
  expect(() => store.run(`UPDATE threads SET created_at = 'noon'`)).toThrow(/INTEGER/);
});

test('a transaction is all or nothing, and nests', async () => {
  const store = await opened({ file });
  expect(() =>
    store.transaction(() => {
      store.run(insertThread);
      store.transaction(() => {
        throw new Error('no');
      });
    }),
  ).toThrow('no');
  expect(store.all('SELECT * FROM threads')).toEqual([]);
});

test('a number that is not finite is kept as NULL', async () => {
  const store = await opened({ file });
  const kept = store.get<{ value: number | null }>('SELECT ? AS value', [NaN]);
  expect(kept!.value).toBeNull();
});

test('what need not be on the disk at once is whole all the same', async () => {
  const store = await opened({ file });
  store.transaction(() => store.run(insertThread), { durable: false });
  expect(() =>
    store.transaction(
      () => {
        store.run(`UPDATE threads SET title = 'Other'`);
        throw new Error('no');
      },
      { durable: false },
    ),
  ).toThrow('no');
  expect(store.all('SELECT title FROM threads')).toEqual([{ title: 'Talk' }]);
});

test('the log is brought into the file on another thread', async () => {
  const store = await opened({ file });
  const title = 'x'.repeat(1000);
  for (let batch = 0; batch < 6; batch++)
    store.transaction(
      () => {
        for (let i = 0; i < 1000; i++)
          store.run('INSERT INTO threads (id, title, model, created_at, updated_at) VALUES (?, ?, ?, 1, 1)', [
            `thread ${batch} ${i}`,
            title,
            'demo',
          ]);
      },
      { durable: false },
    );
  await expect.poll(() => statSync(file).size, { timeout: 4000 }).toBeGreaterThan(4e6);
  expect(store.get('SELECT count(*) AS n FROM threads')).toEqual({ n: 6000 });
});

test('reads at length on another thread', async () => {
  const store = await opened({ file });
  store.run(insertThread);
  expect(await store.query('SELECT id FROM threads WHERE title = ?', ['Talk'])).toEqual([{ id: 't' }]);
  const blob = Buffer.from(Float32Array.of(0.5, NaN).buffer);
  expect(
    await store.query('SELECT f32_at(?, 0) AS a, f32_at(?, 1) AS b, f32_at(?, 2) AS c', [blob, blob, blob]),
  ).toEqual([{ a: 0.5, b: null, c: null }]);
  await expect(store.query('SELECT * FROM nowhere')).rejects.toThrow(/no such table/);
  await expect(store.query('DELETE FROM threads')).rejects.toThrow();
  expect(store.all('SELECT * FROM threads')).toHaveLength(1);
});

describe('migrations', () => {
  test.each([1, shipped.length, shipped.length + 1])(
    'bring version %i with its rows to the newest',
    async (from) => {
      const migrationsDir = migrations(
        `ALTER TABLE threads ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;`,
        `ALTER TABLE threads ADD COLUMN colour TEXT;`,
      );
      const old = await openStore({ file, migrationsDir, toVersion: from });
      old.run(insertThread);
      await old.close();
      const store = await opened({ file, migrationsDir });
      expect(store.get('SELECT id, title, pinned, colour FROM threads')).toEqual({
        id: 't',
        title: 'Talk',
        pinned: 0,
        colour: null,
      });
      expect(store.get('PRAGMA user_version')).toEqual({ user_version: shipped.length + 2 });
      expect(store.notes.join()).toContain(`caravan.db.bak-v${from}`);
      const copy = new Database(`${file}.bak-v${from}`);
      expect(copy.pragma('user_version', { simple: true })).toBe(from);
      expect(copy.prepare('SELECT count(*) FROM threads').pluck().get()).toBe(1);
      copy.close();
    },
  );

  test('the shipped ones are numbered without a gap and run on an empty file', async () => {
    const store = await opened({ file });
    expect(store.get('PRAGMA user_version')).toEqual({ user_version: shipped.length });
  });

  test('one that fails leaves file and version as they were, and says so', async () => {
    const good = migrations();
    const old = await openStore({ file, migrationsDir: good });
    old.run(insertThread);
    await old.close();
    const broken = migrations(`DELETE FROM threads; ALTER TABLE nowhere ADD COLUMN x TEXT;`);
    await expect(openStore({ file, migrationsDir: broken })).rejects.toMatchObject({
      code: 'internal',
      message: expect.stringContaining(`${numbered(1)}_later.sql`),
      mend: expect.stringContaining(`unchanged at version ${shipped.length}`),
    });
    const store = await opened({ file, migrationsDir: good });
    expect(store.get('PRAGMA user_version')).toEqual({ user_version: shipped.length });
    expect(store.all('SELECT id FROM threads')).toEqual([{ id: 't' }]);
  });

  test('one that leaves a reference to nothing is refused', async () => {
    const old = await openStore({ file, migrationsDir: migrations() });
    old.run(insertThread);
    old.run(
      `INSERT INTO messages (id, thread_id, n, role, content, created_at) VALUES ('m', 't', 0, 'user', 'hi', 1)`,
    );
    await old.close();
    await expect(openStore({ file, migrationsDir: migrations('DELETE FROM threads;') })).rejects.toThrow(
      /point to nothing/,
    );
  });
});

test('refuses the database of a newer Caravan', async () => {
  const later = shipped.map((_, index) => `CREATE TABLE later_${index} (x TEXT) STRICT;`);
  const store = await openStore({ file, migrationsDir: migrations(...later) });
  await store.close();
  await expect(openStore({ file })).rejects.toMatchObject({ code: 'database_newer', place: { file } });
});

test('holds disk space back and gives it up once', async () => {
  const store = await openStore({ file, reserveBytes: 1000 });
  await expect.poll(() => statSync(`${file}.reserve`, { throwIfNoEntry: false })?.size).toBe(1000);
  expect(store.releaseReserve()).toBe(true);
  expect(store.releaseReserve()).toBe(false);
  await store.close();
  expect(readdirSync(dir)).toEqual(['caravan.db']);
});
