/**
 * Windows over what a query finds. A query is answered once, as the keys of its rows in order; a window is then read by
 * its keys, so the millionth row costs what the first does. Indexes and answers are kept for as long as they are in use.
 */
import type { DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { CaravanError } from '../../shared/contract/errors.ts';
import {
  flagColumns,
  numberColumns,
  textColumns,
  type Fate,
  type LookFilter,
  type LookQuery,
  type LookReject,
  type LookRow,
  type LookTable,
  type LookWindow,
} from '../../shared/dataset/look.ts';
import { openInstance, select, sqlString } from '../database.ts';
import type { LookFiles } from './lookProtocol.ts';
import { runWatched } from './prepareLook.ts';
import { searchTerms, type SearchTerm } from './searchTerms.ts';

const memoryLimit = '512MB';
/** Indexes open at a time. */
const maxOpen = 2;
/** Answers kept for each: 4 bytes a row. */
const maxAnswers = 8;
/** Searches kept for each: their keys and the text around what was found. */
const maxSearches = 3;
/** Characters shown before and after what was found. */
const aroundFound = 100;

interface OpenLook {
  instance: DuckDBInstance;
  connection: DuckDBConnection;
  totals: Record<LookTable, number>;
  hasMeasures: boolean;
  /** Keys in order; null: every row, in the order of the file. */
  answers: Map<string, Promise<Int32Array | null>>;
  searches: Map<string, Promise<string>>;
  nextTable: number;
}

const open = new Map<string, Promise<OpenLook>>();

async function openLook(files: LookFiles): Promise<OpenLook> {
  const id = `${files.index}\n${files.measures ?? ''}`;
  let found = open.get(id);
  open.delete(id);
  found ??= openFiles(files);
  open.set(id, found);
  found.catch(() => open.delete(id));
  for (const [old, look] of open) {
    if (open.size <= maxOpen) break;
    open.delete(old);
    void look.then(close);
  }
  return found;
}

function close({ connection, instance }: OpenLook): void {
  connection.closeSync();
  instance.closeSync();
}

export async function closeLook({ index }: { index: string }): Promise<Record<string, never>> {
  for (const [id, look] of open) {
    if (!id.startsWith(`${index}\n`)) continue;
    open.delete(id);
    close(await look);
  }
  return {};
}

async function openFiles({ index, measures }: LookFiles): Promise<OpenLook> {
  const instance = await openInstance(':memory:', memoryLimit, 2);
  try {
    const connection = await instance.connect();
    await connection.run(`ATTACH ${sqlString(index)} AS look (READ_ONLY)`);
    if (measures !== null)
      await connection.run(
        `CREATE TEMP TABLE measures AS SELECT * FROM read_parquet(${sqlString(measures)})`,
      );
    const rows = measures === null ? unmeasured : measured;
    await connection.run(`CREATE TEMP VIEW looked AS ${rows}`);
    const [counts] = await select<Record<LookTable, number>>(
      connection,
      'SELECT (SELECT count(*) FROM look.rows) AS rows, (SELECT count(*) FROM look.rejects) AS rejects',
    );
    return {
      instance,
      connection,
      totals: counts!,
      hasMeasures: measures !== null,
      answers: new Map(),
      searches: new Map(),
      nextTable: 1,
    };
  } catch (error) {
    instance.closeSync();
    throw error;
  }
}
const unmeasured = `SELECT *, NULL::VARCHAR AS fate FROM look.rows`;
const measured = `SELECT r.* REPLACE (m.tokens AS tokens, m."targetTokens" AS "targetTokens"), m.fate
  FROM look.rows AS r JOIN measures AS m USING (key)`;

export interface Watched {
  onShare: (share: number) => void;
  cancelled: AbortSignal;
}
const unwatched: Watched = { onShare: () => undefined, cancelled: new AbortController().signal };

export async function countLook(
  { files, query }: { files: LookFiles; query: LookQuery },
  watched: Watched,
): Promise<{ total: number }> {
  const look = await openLook(files);
  const keys = await answer(look, files, query, watched);
  return { total: keys?.length ?? look.totals[query.table] };
}

export async function readLook({
  files,
  query,
  from,
  count,
}: {
  files: LookFiles;
  query: LookQuery;
  from: number;
  count: number;
}): Promise<LookWindow> {
  const look = await openLook(files);
  const keys = await answer(look, files, query, unwatched);
  const total = keys?.length ?? look.totals[query.table];
  const wanted = keys
    ? [...keys.subarray(from, from + count)]
    : Array.from({ length: Math.max(0, Math.min(count, total - from)) }, (_, index) => from + index);
  if (wanted.length === 0) return { total, rows: [], rejects: [] };
  const where = keys ? `key IN (${wanted.join(', ')})` : `key BETWEEN ${from} AND ${from + count - 1}`;
  if (query.table === 'rejects') {
    const rejects = await select<LookReject>(look.connection, `SELECT * FROM look.rejects WHERE ${where}`);
    return { total, rows: [], rejects: inOrder(rejects, wanted) };
  }
  const rows = await readRows(look, where);
  const around = query.search.trim() === '' ? null : await foundText(look, files, query, wanted);
  return {
    total,
    rejects: [],
    rows: inOrder(rows, wanted).map((row) => ({ ...row, found: around?.get(row.key) ?? null })),
  };
}

function inOrder<R extends { key: number }>(rows: R[], keys: readonly number[]): R[] {
  const byKey = new Map(rows.map((row) => [row.key, row]));
  return keys.flatMap((key) => byKey.get(key) ?? []);
}

/** The rows without the text that was found. Counts of a measure are read apart: a join would touch every row. */
async function readRows(look: OpenLook, where: string): Promise<LookRow[]> {
  const rows = await select<LookRow & { hash?: string; duplicateOf?: number | null }>(
    look.connection,
    `SELECT *, NULL::VARCHAR AS fate, NULL::VARCHAR AS found FROM look.rows WHERE ${where}`,
  );
  for (const row of rows) {
    delete row.hash;
    delete row.duplicateOf;
    row.prompt = oneLine(row.prompt);
    row.answer = oneLine(row.answer);
  }
  if (look.hasMeasures) {
    const measures = await select<{ key: number; tokens: number; targetTokens: number; fate: Fate }>(
      look.connection,
      `SELECT * FROM measures WHERE ${where}`,
    );
    const byKey = new Map(measures.map((measure) => [measure.key, measure]));
    for (const row of rows) Object.assign(row, byKey.get(row.key));
  }
  return rows;
}

/** A cut may have halved a surrogate pair. */
function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().toWellFormed();
}

export async function findLook({
  files,
  query,
  key,
}: {
  files: LookFiles;
  query: LookQuery;
  key: number;
}): Promise<{ position: number | null }> {
  const look = await openLook(files);
  const keys = await answer(look, files, query, unwatched);
  if (keys === null) return { position: key >= 0 && key < look.totals[query.table] ? key : null };
  const position = keys.indexOf(key);
  return { position: position < 0 ? null : position };
}

/** One row of the index, with its hash and the earlier row that has its words. */
export async function readIndexRow(
  files: LookFiles,
  key: number,
): Promise<{ row: LookRow; hash: string; duplicateOf: number | null }> {
  const look = await openLook(files);
  const [row] = await readRows(look, `key = ${key}`);
  const [more] = await select<{ hash: string; duplicateOf: number | null }>(
    look.connection,
    `SELECT hash, "duplicateOf" FROM look.rows WHERE key = ${key}`,
  );
  if (!row || !more)
    throw new CaravanError('not_found', `there is no row ${key} here: the last is ${look.totals.rows - 1}`);
  return { row, ...more };
}

/** What describeLook reads: rows with their measures, under the name `looked`. */
export async function lookConnection(
  files: LookFiles,
): Promise<{ connection: DuckDBConnection; hasMeasures: boolean }> {
  return openLook(files);
}

async function answer(
  look: OpenLook,
  files: LookFiles,
  query: LookQuery,
  watched: Watched,
): Promise<Int32Array | null> {
  const { search, ...rest } = query;
  const terms = query.table === 'rows' ? searchTerms(search) : [];
  const name = JSON.stringify([rest, query.table === 'rows' ? terms : search]);
  let keys = look.answers.get(name);
  look.answers.delete(name);
  keys ??= find(look, files, query, watched);
  look.answers.set(name, keys);
  keys.catch(() => look.answers.delete(name));
  trim(look.answers, maxAnswers);
  return keys;
}

function trim(map: Map<string, unknown>, size: number): string[] {
  const dropped: string[] = [];
  for (const key of map.keys()) {
    if (map.size <= size) break;
    map.delete(key);
    dropped.push(key);
  }
  return dropped;
}

async function find(
  look: OpenLook,
  files: LookFiles,
  query: LookQuery,
  watched: Watched,
): Promise<Int32Array | null> {
  const conditions = query.filters.map((filter) => condition(filter, query.table));
  if (query.search.trim() !== '')
    conditions.push(
      query.table === 'rows'
        ? `key IN (SELECT key FROM ${await searched(look, files, query.search, watched)})`
        : rejectsSearch(query.search),
    );
  const { sort } = query;
  if (sort) checkColumn(sort.column, query.table);
  if (conditions.length === 0 && (sort === null || (sort.column === 'key' && !sort.descending))) return null;
  const order = sort ? `"${sort.column}" ${sort.descending ? 'DESC' : 'ASC'} NULLS LAST, key` : 'key';
  const reader = await look.connection.runAndReadAll(
    `SELECT key::INTEGER AS key FROM ${query.table === 'rows' ? 'looked' : 'look.rejects'}
     ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''} ORDER BY ${order}`,
  );
  return Int32Array.from((reader.getColumnsJS()[0] ?? []) as number[]);
}

const rejectColumns = new Set<string>(['key', 'line', 'file', 'source', 'field', 'reason']);

function checkColumn(column: string, table: LookTable): void {
  const known =
    table === 'rejects'
      ? rejectColumns.has(column)
      : [...numberColumns, ...textColumns, ...flagColumns].some((name) => name === column) &&
        column !== 'reason' &&
        column !== 'field';
  if (!known)
    throw new CaravanError('bad_option', `rows of this table have no column '${column}'`, {
      place: { field: column },
    });
}

function condition(filter: LookFilter, table: LookTable): string {
  checkColumn(filter.column, table);
  const column = `"${filter.column}"`;
  if (filter.kind === 'flag') return `${column} = ${filter.value}`;
  if (filter.kind === 'oneOf')
    return `coalesce(${column}, '') IN (${filter.values.map(sqlString).join(', ')})`;
  const bounds = [
    ...(filter.min === undefined ? [] : [`${column} >= ${filter.min}`]),
    ...(filter.max === undefined ? [] : [`${column} <= ${filter.max}`]),
  ];
  return bounds.length > 0 ? `(${bounds.join(' AND ')})` : 'true';
}

function rejectsSearch(search: string): string {
  const text = `lower(concat_ws(' ', source, file, line, field, reason, detail))`;
  return searchTerms(search)
    .map((term) => `${term.absent ? 'NOT ' : ''}contains(${text}, ${sqlString(term.text)})`)
    .concat('true')
    .join(' AND ');
}

/** @returns a table with the key of every row whose messages hold the words, and the text around the first of them */
async function searched(look: OpenLook, files: LookFiles, search: string, watched: Watched): Promise<string> {
  const name = JSON.stringify(searchTerms(search));
  let table = look.searches.get(name);
  look.searches.delete(name);
  table ??= scan(look, files, search, watched);
  look.searches.set(name, table);
  table.catch(() => look.searches.delete(name));
  const old = [...look.searches];
  trim(look.searches, maxSearches);
  for (const [key, gone] of old)
    if (!look.searches.has(key))
      void gone.then((dropped) => look.connection.run(`DROP TABLE IF EXISTS ${dropped}`));
  return table;
}

async function scan(
  look: OpenLook,
  files: LookFiles,
  search: string,
  { onShare, cancelled }: Watched,
): Promise<string> {
  const terms = searchTerms(search);
  const table = `found_${look.nextTable++}`;
  const condition = terms.map(matches).concat('true').join(' AND ');
  const first = terms.find((term) => !term.absent);
  const spelled = first && jsonSpelling(first.text);
  const around = spelled
    ? `substr(messages, greatest(1, strpos(lower(messages), ${sqlString(spelled)}) - ${aroundFound}), ${2 * aroundFound + spelled.length})`
    : 'NULL::VARCHAR';
  // A connection of its own: windows are read while it goes on.
  const connection = await look.instance.connect();
  try {
    await runWatched(
      connection,
      `CREATE TABLE memory.${table} AS SELECT file_row_number::INTEGER AS key, ${around} AS around
       FROM read_parquet(${sqlString(files.rows)}, file_row_number = true) WHERE ${condition}`,
      onShare,
      cancelled,
      'the search',
    );
  } finally {
    connection.closeSync();
  }
  return `memory.${table}`;
}

/** What stands around texts in the JSON of messages: words that are part of it might be found there. */
const betweenTexts =
  '[{"role":"system","content":""},{"role":"user","content":""},{"role":"assistant","content":"","train":false}]';

/** Words are sought in the JSON as it is, which costs a third of taking it apart, unless its own words could be meant. */
function matches({ text, absent }: SearchTerm): string {
  const spelled = jsonSpelling(text);
  const rough = `contains(lower(messages), ${sqlString(spelled)})`;
  const texts = `array_to_string(list_transform(from_json(messages, '[{"content":"VARCHAR"}]'), m -> m.content), chr(10))`;
  const found = betweenTexts.includes(spelled)
    ? `(${rough} AND contains(lower(${texts}), ${sqlString(text)}))`
    : rough;
  return absent ? `NOT ${found}` : found;
}

/** A piece of the JSON of messages as text: a cut may have halved an escape or a name. */
function textOfJson(piece: string): string {
  // Quotes of a text are escaped: one without a backslash belongs to the JSON around it.
  return piece
    .replace(/(?<!\\)"(?:,"train":false)?\},\{"role":"\w*","content":"/g, ' · ')
    .replace(/^(?:.{0,40}?(?<!\\)",)?"?\w{0,7}":"/, '')
    .replace(/(?<!\\)"(?:,"train":false)?(?:\}.*)?$/, '')
    .replace(/^(?:\\u[0-9a-f]{0,3}|[0-9a-f]{0,3}(?=\\))/i, '')
    .replace(/\\u[0-9a-f]{0,4}$|\\$/i, '')
    .replace(/\\[nrtbf]/g, ' ')
    .replace(/\\u([0-9a-f]{4})/gi, (_, code: string) => String.fromCharCode(parseInt(code, 16)))
    .replace(/\\(.)/g, '$1')
    .replace(/^[\s·]+|[\s·]+$/g, '');
}

/** As the text stands inside a JSON string. */
function jsonSpelling(text: string): string {
  return JSON.stringify(text).slice(1, -1).toLowerCase();
}

async function foundText(
  look: OpenLook,
  files: LookFiles,
  query: LookQuery,
  keys: readonly number[],
): Promise<Map<number, string>> {
  const table = await searched(look, files, query.search, unwatched);
  const rows = await select<{ key: number; around: string | null }>(
    look.connection,
    `SELECT key, around FROM ${table} WHERE key IN (${keys.join(', ')})`,
  );
  return new Map(
    rows.flatMap(({ key, around }) => (around === null ? [] : [[key, oneLine(textOfJson(around))]])),
  );
}
