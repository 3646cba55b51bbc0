import type { Mix } from '../../shared/dataset/recipe.ts';
import type { Source } from '../../shared/dataset/source.ts';
import { freeName } from '../../shared/names.ts';
import type { Store } from '../../store/openStore.ts';

export interface SourceTable {
  /** By id or name. */
  find(ref: string): Source | null;
  findByFingerprint(fingerprint: string): Source | null;
  list(): Source[];
  add(source: Source, fingerprint: string): void;
  remove(id: string): void;
}

export interface MixTable {
  /** By id, name or folder. */
  find(ref: string): Mix | null;
  list(): Mix[];
  /** The newest mix of a name has it; an earlier one of another folder keeps its rows under `NAME-old`. @returns what
   * that one is called now. */
  save(mix: Mix): string | null;
  remove(id: string): void;
}

export function createSourceTable(store: Store): SourceTable {
  const parse = (row: { record: string } | undefined) => (row ? (JSON.parse(row.record) as Source) : null);
  return {
    find: (ref) =>
      parse(
        store.get('SELECT record FROM sources WHERE id = ? OR name = ? ORDER BY id = ? DESC', [
          ref,
          ref,
          ref,
        ]),
      ),
    findByFingerprint: (fingerprint) =>
      parse(
        store.get('SELECT record FROM sources WHERE fingerprint = ? ORDER BY imported_at DESC', [
          fingerprint,
        ]),
      ),
    list: () =>
      store
        .all<{ record: string }>('SELECT record FROM sources ORDER BY imported_at DESC, name')
        .map((row) => parse(row)!),
    add(source, fingerprint) {
      store.run('INSERT INTO sources VALUES (?, ?, ?, ?, ?)', [
        source.id,
        source.name,
        fingerprint,
        JSON.stringify(source),
        source.importedAt,
      ]);
    },
    remove(id) {
      store.run('DELETE FROM sources WHERE id = ?', [id]);
    },
  };
}

export function createMixTable(store: Store): MixTable {
  const parse = (row: { record: string } | undefined) => (row ? (JSON.parse(row.record) as Mix) : null);
  const write = (mix: Mix) =>
    store.run(
      `INSERT INTO mixes VALUES (:id, :name, :dir, :record, :builtAt)
       ON CONFLICT (id) DO UPDATE SET name = :name, dir = :dir, record = :record, built_at = :builtAt`,
      { id: mix.id, name: mix.name, dir: mix.dir, record: JSON.stringify(mix), builtAt: mix.builtAt },
    );
  const table: MixTable = {
    find: (ref) =>
      parse(
        store.get(
          'SELECT record FROM mixes WHERE id = :ref OR name = :ref OR dir = :ref ORDER BY id = :ref DESC',
          {
            ref,
          },
        ),
      ),
    list: () =>
      store
        .all<{ record: string }>('SELECT record FROM mixes ORDER BY built_at DESC, name')
        .map((row) => parse(row)!),
    save: (mix) =>
      store.transaction(() => {
        const holder = parse(
          store.get('SELECT record FROM mixes WHERE name = ? AND id <> ?', [mix.name, mix.id]),
        );
        const moved = holder && {
          ...holder,
          name: freeName(`${holder.name}-old`, (name) => table.find(name) !== null),
        };
        if (moved) write(moved);
        write(mix);
        return moved?.name ?? null;
      }),
    remove(id) {
      store.run('DELETE FROM mixes WHERE id = ?', [id]);
    },
  };
  return table;
}
