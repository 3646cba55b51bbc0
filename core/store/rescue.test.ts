import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openStore, type Store } from './openStore.ts';

let dir: string;
let file: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rescue-'));
  file = join(dir, 'caravan.db');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const pageSize = 4096;
const threads = 2000;

/** A database of many pages: threads with one message each, and lines of a job in a table without rowids. */
async function fill(): Promise<void> {
  const store = await openStore({ file });
  store.transaction(() => {
    store.run(
      `INSERT INTO jobs (id, kind, title, state, can_pause, can_cancel, created_at) VALUES ('job', 'import', 'Rows', 'completed', 0, 0, 1)`,
    );
    for (let i = 0; i < threads; i++) {
      store.run(
        `INSERT INTO threads (id, title, model, created_at, updated_at) VALUES (?, 'Talk', 'demo', 1, 1)`,
        [`thread ${i}`],
      );
      store.run(
        `INSERT INTO messages (id, thread_id, n, role, content, created_at) VALUES (?, ?, 0, 'user', ?, 1)`,
        [`message ${i}`, `thread ${i}`, `What is ${i} plus ${i}? ${'Think. '.repeat(10)}`],
      );
      store.run(`INSERT INTO job_lines (job_id, n, line) VALUES ('job', ?, ?)`, [i, `row ${i} is in`]);
    }
  });
  await store.close();
}

function overwritePage(page: number): void {
  const bytes = readFileSync(file);
  bytes.fill(0x55, (page - 1) * pageSize, page * pageSize);
  writeFileSync(file, bytes);
}

const count = (store: Store, table: string) =>
  store.get<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)!.n;

/** The page that holds the middle of a table. */
function pageOf(table: string): number {
  const bytes = readFileSync(file);
  const needle = { threads: `thread ${threads / 2}Talk`, messages: `message ${threads / 2}thread` }[table]!;
  const at = bytes.indexOf(needle);
  expect(at).toBeGreaterThan(0);
  return Math.floor(at / pageSize) + 1;
}

describe('a damaged database', () => {
  test('keeps every row beside the damaged page, drops what pointed into it, and says so', async () => {
    await fill();
    overwritePage(pageOf('threads'));
    const store = await openStore({ file, endedUncleanly: true });
    const kept = count(store, 'threads');
    // A page holds some 133 threads.
    expect(kept).toBeLessThan(threads);
    expect(kept).toBeGreaterThan(threads - 140);
    expect(count(store, 'messages')).toBe(kept);
    expect(count(store, 'job_lines')).toBe(threads);
    expect(store.all('PRAGMA foreign_key_check')).toEqual([]);
    expect(store.get('PRAGMA integrity_check')).toEqual({ integrity_check: 'ok' });
    expect(store.notes[0]).toMatch(
      /^the database was damaged \(.+\); it lies in .+caravan\.db\.damaged-1 now$/,
    );
    expect(store.notes[1]).toContain(`${kept} of threads`);
    expect(store.notes[1]).toContain('the rest is lost');
    await store.close();
    expect(readdirSync(dir).sort()).toEqual(['caravan.db', 'caravan.db.damaged-1']);
    const again = await openStore({ file, endedUncleanly: true });
    expect(again.notes).toEqual([]);
    await again.close();
  });

  test('opens again whichever page was overwritten', async () => {
    await fill();
    const whole = readFileSync(file);
    const pages = whole.length / pageSize;
    for (let page = 1; page <= pages; page += 11) {
      writeFileSync(file, whole);
      overwritePage(page);
      const store = await openStore({ file, endedUncleanly: true });
      expect(store.get('PRAGMA integrity_check'), `page ${page}`).toEqual({ integrity_check: 'ok' });
      expect(store.all('PRAGMA foreign_key_check'), `page ${page}`).toEqual([]);
      // The pages that say what tables there are are worth all rows. Any other costs its own table alone: the rows of that
      // page, or, where it leads to others, all that lies between both ends.
      const rows = count(store, 'threads') + count(store, 'job_lines');
      const schema = whole.subarray((page - 1) * pageSize, page * pageSize).includes('CREATE TABLE');
      if (schema)
        expect(store.notes, `page ${page}`).toContainEqual(expect.stringContaining('nothing could be'));
      else expect(rows, `page ${page}`).toBeGreaterThanOrEqual(threads);
      await store.close();
      for (const name of readdirSync(dir)) rmSync(join(dir, name));
    }
  }, 60_000);

  test('that is none at all begins anew, from the copy before the last update where there is one', async () => {
    const old = await openStore({ file, toVersion: 1 });
    old.run(
      `INSERT INTO threads (id, title, model, created_at, updated_at) VALUES ('old', 'Talk', 'demo', 1, 1)`,
    );
    await old.close();
    await (await openStore({ file })).close();
    writeFileSync(file, 'this is not a database, it is a sentence that goes on for a while. '.repeat(40));
    const store = await openStore({ file });
    expect(store.all('SELECT id, parent FROM threads')).toEqual([{ id: 'old', parent: null }]);
    expect(store.notes.join('\n')).toContain('caravan.db.bak-v1: 1 of threads');
    await store.close();
    rmSync(join(dir, 'caravan.db.bak-v1'));
    writeFileSync(file, 'neither is this one. '.repeat(100));
    const empty = await openStore({ file });
    expect(empty.notes.join('\n')).toContain('nothing could be read of it');
    expect(count(empty, 'threads')).toBe(0);
    await empty.close();
    expect(readdirSync(dir).sort()).toEqual(['caravan.db', 'caravan.db.damaged-1', 'caravan.db.damaged-2']);
  });

  test('leaves out what is read from files again', async () => {
    await fill();
    overwritePage(pageOf('messages'));
    const store = await openStore({ file, endedUncleanly: true, indexTables: ['job_lines'] });
    expect(count(store, 'job_lines')).toBe(0);
    expect(count(store, 'threads')).toBe(threads);
    expect(store.notes.at(-1)).toBe('runs are read back from their folders');
    await store.close();
  });

  test('that shows its damage at work is checked at the next start', async () => {
    await fill();
    const page = pageOf('threads');
    overwritePage(page);
    const store = await openStore({ file });
    expect(() => store.all('SELECT * FROM threads')).toThrow(/damaged/);
    await store.close();
    expect(readdirSync(dir)).toContain('caravan.db.suspect');
    const mended = await openStore({ file });
    expect(mended.notes[0]).toContain('the database was damaged');
    expect(mended.all('SELECT id FROM threads').length).toBeGreaterThan(threads - 140);
    await mended.close();
    expect(readdirSync(dir)).not.toContain('caravan.db.suspect');
  });

  test('what a newer Caravan wrote is left alone', async () => {
    await fill();
    const database = new Database(file);
    database.pragma('user_version = 99');
    database.close();
    await expect(openStore({ file, endedUncleanly: true })).rejects.toMatchObject({ code: 'database_newer' });
    expect(readdirSync(dir)).not.toContain('caravan.db.damaged-1');
  });
});
