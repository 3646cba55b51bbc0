import type { Mix } from '../../shared/dataset/recipe.ts';
import type { Source } from '../../shared/dataset/source.ts';
import { freeName } from '../../shared/names.ts';
import type { Store } from '../../store/openStore.ts';

export interface SourceTable {
  /** By id or name. */
  find(ref: string): Source | null;
  findByFingerprint(fingerprint: string): Source | null;
  list(): Source[];
  listTrash(): Source[];
  /** Out of the lists and names until it is restored; its id still finds it. */
  trash(id: string, at: number): void;
  /** @returns its name, another one where its own is taken by now */
  restore(id: string): string;
  add(source: Source, fingerprint: string): void;
  remove(id: string): void;
}

export interface MixTable {
  /** By id, name or folder. */
  find(ref: string): Mix | null;
  list(): Mix[];
  listTrash(): Mix[];
  trash(id: string, at: number): void;
  restore(id: string): string;
  /** The newest mix of a name has it; an earlier one of another folder keeps its rows under `NAME-old`. @returns what
   * that one is called now. */
  save(mix: Mix): string | null;
  remove(id: string): void;
}

/** What lies in the trash has given up its name: UNIQUE holds for the library alone. */
const trashName = (id: string) => `\0trash ${id}`;
const inLibrary = "json_extract(record, '$.trashedAt') IS NULL";

/** The part of either table that the trash is about. */
function trashOf<R extends { id: string; name: string; trashedAt?: number | undefined }>(
  store: Store,
  table: 'sources' | 'mixes',
  find: (ref: string) => R | null,
) {
  const write = (id: string, name: string, record: R) =>
    store.run(`UPDATE ${table} SET name = ?, record = ? WHERE id = ?`, [name, JSON.stringify(record), id]);
  return {
    listTrash: () =>
      store
        .all<{ record: string }>(`SELECT record FROM ${table} WHERE NOT (${inLibrary})`)
        .map(({ record }) => JSON.parse(record) as R)
        .sort((a, b) => b.trashedAt! - a.trashedAt!),
    trash(id: string, at: number) {
      write(id, trashName(id), { ...find(id)!, trashedAt: at });
    },
    restore(id: string) {
      const { trashedAt, ...record } = find(id)!;
      if (trashedAt === undefined) return record.name;
      const name = freeName(record.name, (taken) => find(taken) !== null);
      write(id, name, { ...record, name } as unknown as R);
      return name;
    },
  };
}

export function createSourceTable(store: Store): SourceTable {
  const parse = (row: { record: string } | undefined) => (row ? (JSON.parse(row.record) as Source) : null);
  const find = (ref: string) =>
    parse(
      store.get('SELECT record FROM sources WHERE id = ? OR name = ? ORDER BY id = ? DESC', [ref, ref, ref]),
    );
  return {
    ...trashOf<Source>(store, 'sources', find),
    find,
    findByFingerprint: (fingerprint) =>
      parse(
        store.get(
          `SELECT record FROM sources WHERE fingerprint = ? AND ${inLibrary} ORDER BY imported_at DESC`,
          [fingerprint],
        ),
      ),
    list: () =>
      store
        .all<{
          record: string;
        }>(`SELECT record FROM sources WHERE ${inLibrary} ORDER BY imported_at DESC, name`)
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
  const find = (ref: string) =>
    parse(
      store.get(
        'SELECT record FROM mixes WHERE id = :ref OR name = :ref OR dir = :ref ORDER BY id = :ref DESC',
        { ref },
      ),
    );
  const table: MixTable = {
    ...trashOf<Mix>(store, 'mixes', find),
    find,
    list: () =>
      store
        .all<{ record: string }>(`SELECT record FROM mixes WHERE ${inLibrary} ORDER BY built_at DESC, name`)
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
