import type { Model } from '../../shared/model/model.ts';
import { freeName } from '../../shared/names.ts';
import type { Store } from '../../store/openStore.ts';

export interface ModelTable {
  /** By id or name; in the trash by id alone. */
  find(ref: string): Model | null;
  findByDir(dir: string): Model | null;
  /** One that was copied from there into the home. */
  findCopyOf(path: string): Model | null;
  findInTrash(dir: string): Model | null;
  list(): Model[];
  listTrash(): Model[];
  /** Out of the lists and names until it is restored. */
  trash(id: string, at: number): void;
  /** @returns its name, another one where its own is taken by now */
  restore(id: string): string;
  save(model: Model): void;
  remove(id: string): void;
  /** A content hash that was kept for these very files; null where they changed or were never hashed. */
  hash(path: string, fingerprint: string): string | null;
  keepHash(path: string, fingerprint: string, hash: string): void;
}

/** What lies in the trash has given up its name: UNIQUE holds for the library alone. */
const trashName = (id: string) => `\0trash ${id}`;
const inLibrary = "json_extract(record, '$.trashedAt') IS NULL";

export function createModelTable(store: Store): ModelTable {
  const parse = (row: { record: string } | undefined) => (row ? (JSON.parse(row.record) as Model) : null);
  const find = (ref: string) =>
    parse(
      store.get('SELECT record FROM models WHERE id = ? OR name = ? ORDER BY id = ? DESC', [ref, ref, ref]),
    );
  const write = (id: string, name: string, record: Model) =>
    store.run('UPDATE models SET name = ?, record = ? WHERE id = ?', [name, JSON.stringify(record), id]);
  return {
    find,
    findByDir: (dir) => parse(store.get(`SELECT record FROM models WHERE dir = ? AND ${inLibrary}`, [dir])),
    findCopyOf: (path) =>
      parse(
        store.get(
          `SELECT record FROM models WHERE json_extract(record, '$.copiedFrom') = ? AND ${inLibrary}`,
          [path],
        ),
      ),
    findInTrash: (dir) =>
      parse(store.get(`SELECT record FROM models WHERE dir = ? AND NOT (${inLibrary})`, [dir])),
    list: () =>
      store
        .all<{ record: string }>(`SELECT record FROM models WHERE ${inLibrary} ORDER BY name`)
        .map((row) => parse(row)!),
    listTrash: () =>
      store
        .all<{ record: string }>(`SELECT record FROM models WHERE NOT (${inLibrary})`)
        .map((row) => parse(row)!)
        .sort((a, b) => b.trashedAt! - a.trashedAt!),
    trash(id, at) {
      write(id, trashName(id), { ...find(id)!, trashedAt: at });
    },
    restore(id) {
      const { trashedAt, ...record } = find(id)!;
      if (trashedAt === undefined) return record.name;
      const name = freeName(record.name, (taken) => find(taken) !== null);
      write(id, name, { ...record, name });
      return name;
    },
    save(model) {
      store.run(
        `INSERT INTO models VALUES (:id, :name, :dir, :record, :addedAt)
         ON CONFLICT (id) DO UPDATE SET name = :name, dir = :dir, record = :record`,
        {
          id: model.id,
          name: model.name,
          dir: model.dir,
          record: JSON.stringify(model),
          addedAt: model.addedAt,
        },
      );
    },
    remove(id) {
      store.run('DELETE FROM models WHERE id = ?', [id]);
    },
    hash: (path, fingerprint) =>
      store.get<{ hash: string }>('SELECT hash FROM content_hashes WHERE path = ? AND fingerprint = ?', [
        path,
        fingerprint,
      ])?.hash ?? null,
    keepHash(path, fingerprint, hash) {
      store.run('INSERT OR REPLACE INTO content_hashes VALUES (?, ?, ?)', [path, fingerprint, hash]);
    },
  };
}
