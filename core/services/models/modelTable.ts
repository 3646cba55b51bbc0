import type { Model } from '../../shared/model/model.ts';
import type { Store } from '../../store/openStore.ts';

export interface ModelTable {
  /** By id or name. */
  find(ref: string): Model | null;
  findByDir(dir: string): Model | null;
  list(): Model[];
  save(model: Model): void;
  remove(id: string): void;
  /** A content hash that was kept for these very files; null where they changed or were never hashed. */
  hash(path: string, fingerprint: string): string | null;
  keepHash(path: string, fingerprint: string, hash: string): void;
}

export function createModelTable(store: Store): ModelTable {
  const parse = (row: { record: string } | undefined) => (row ? (JSON.parse(row.record) as Model) : null);
  return {
    find: (ref) =>
      parse(
        store.get('SELECT record FROM models WHERE id = ? OR name = ? ORDER BY id = ? DESC', [ref, ref, ref]),
      ),
    findByDir: (dir) => parse(store.get('SELECT record FROM models WHERE dir = ?', [dir])),
    list: () =>
      store.all<{ record: string }>('SELECT record FROM models ORDER BY name').map((row) => parse(row)!),
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
