import type { DuckDBConnection } from '@duckdb/node-api';
import type { AddonNearDuplicates, NearDuplicateRows } from '../../engine/AddonTypes.ts';
import type { NearDuplicateSettings } from '../../shared/dataset/dedup.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { select } from '../database.ts';
import type { AddonLoader, Report } from '../protocol.ts';
import { readTexts, rowsStillIn, sourceName, type RowTable } from './rowTable.ts';

/** What the manifest says of a search: enough to run it again with another tool. */
export interface NearDuplicateSummary extends Required<NearDuplicateSettings> {
  rowsPerBand: number;
  seed: number;
  /** Rows that were compared in full. */
  candidates: number;
  /** Sets of near-duplicates, and the rows that they lost: all but the first of each. */
  clusters: number;
  removed: number;
}

/** Of the permutations: the peers' own choice, and not the recipe's seed, so that another shuffle drops the same rows. */
const seed = 42;
/** Texts handed to the addon at a time. */
const batchRows = 4000;
/** Candidates judged at a time, unless one group has more. Their shingles take about 2 kB a row of 1.6 kB. */
const loadedRows = 40_000;

/** What is compared: all that user and assistant say. System prompts are shared by rows that have nothing else in common. */
function wordsOf(messages: readonly Message[]): string {
  return messages.flatMap(({ role, content }) => (role === 'system' ? [] : [content])).join('\n');
}

export interface NearDuplicateSearch {
  table: RowTable;
  settings: NearDuplicateSettings;
  threads: number;
  loadAddon: AddonLoader;
  report: Report;
  stop: () => void;
}

/**
 * Rejects near-duplicates among the rows still in. Texts are read twice, in batches: once for the signatures, of which the
 * addon keeps 8 bytes a band and row, and once more for the candidates, whose similarity is then computed exactly.
 */
export async function dropNearDuplicates(search: NearDuplicateSearch): Promise<NearDuplicateSummary> {
  const { settings, threads, loadAddon } = search;
  const finder = await loadAddon().createNearDuplicates({ ...settings, seed, threads });
  try {
    const ids = await sign(search, finder);
    search.stop();
    search.report({ done: 0, total: null, unit: 'rows', stage: 'finding near-duplicates' });
    const candidates = await finder.findCandidates();
    const { clusters, removed } = await judge(search, finder, ids, candidates);
    return {
      ...settings,
      bands: finder.bands,
      rowsPerBand: finder.rowsPerBand,
      seed,
      candidates: candidates.rows.length,
      clusters,
      removed,
    };
  } finally {
    finder.dispose();
  }
}

/** @returns the row ids by the addon's numbers */
async function sign(
  { table, report, stop }: NearDuplicateSearch,
  finder: AddonNearDuplicates,
): Promise<Int32Array> {
  const still = await rowsStillIn(table);
  const total = still.reduce((sum, one) => sum + one, 0);
  const ids = new Int32Array(total);
  let done = 0;
  let signing = Promise.resolve();
  for await (const rows of readTexts(table, still, batchRows)) {
    stop();
    const texts = rows.map(({ messages }) => wordsOf(messages));
    await signing;
    // Signed while the next rows are read; a failure is met at the next await.
    signing = finder.add(texts);
    signing.catch(() => {});
    for (const row of rows) ids[done++] = row.id;
    report({ done, total, unit: 'rows', stage: 'signing rows' });
  }
  await signing;
  return ids;
}

/** Compares candidates exactly and rejects all rows of a cluster but the first. */
async function judge(
  search: NearDuplicateSearch,
  finder: AddonNearDuplicates,
  ids: Int32Array,
  { rows, offsets }: { rows: Int32Array; offsets: Int32Array },
): Promise<{ clusters: number; removed: number }> {
  const { table, report, stop } = search;
  const { connection, sources } = table;
  await writeCandidates(table, ids, rows);
  await connection.run(
    'CREATE TEMP TABLE near (id BIGINT, kept BIGINT, jaccard DOUBLE, linked BIGINT, linked_jaccard DOUBLE)',
  );
  const clusters = new Set<number>();
  let removed = 0;
  for (let group = 0; group + 1 < offsets.length;) {
    const first = offsets[group]!;
    do group++;
    while (group + 1 < offsets.length && offsets[group + 1]! - first <= loadedRows);
    const last = offsets[group]!;
    for (let from = first; from < last; from += batchRows) {
      stop();
      const to = Math.min(from + batchRows, last);
      const texts = await select<{ words: string }>(
        connection,
        'SELECT words FROM candidates WHERE place >= $from AND place < $to ORDER BY place',
        { from, to },
      );
      await finder.load(
        rows.subarray(from, to),
        texts.map((row) => row.words),
      );
    }
    const lost = await finder.verify();
    await appendLost(connection, lost, ids);
    for (const kept of lost.kept) clusters.add(kept);
    removed += lost.rows.length;
    report({ done: last, total: rows.length, unit: 'rows', stage: 'comparing near-duplicates' });
  }
  const place = (alias: string) =>
    `'row ' || ${alias}."row" || ' of ' || ${sourceName(sources, `${alias}.source`)}`;
  await connection.run(`UPDATE rows SET reason = 'near_duplicate', step = 'dedup',
      detail = format('Jaccard {:.3f} with ', near.jaccard) || ${place('kept')} || CASE WHEN near.linked = near.kept THEN ''
        ELSE format(', by way of a chain: {:.3f} with ', near.linked_jaccard) || ${place('linked')} END
    FROM near JOIN rows AS kept ON kept.id = near.kept JOIN rows AS linked ON linked.id = near.linked
    WHERE near.id = rows.id`);
  await connection.run('DROP TABLE near');
  await connection.run('DROP TABLE candidates');
  return { clusters: clusters.size, removed };
}

/** The words of all candidates in the order in which they are judged, so that each batch is one range. */
async function writeCandidates(table: RowTable, ids: Int32Array, rows: Int32Array): Promise<void> {
  const { connection, sources } = table;
  const placeOf = new Map<number, number>();
  const wanted = new Uint8Array(sources.reduce((sum, source) => sum + source.rows, 0));
  for (const [place, row] of rows.entries()) {
    placeOf.set(ids[row]!, place);
    wanted[ids[row]!] = 1;
  }
  await connection.run('CREATE TEMP TABLE unordered (place INTEGER, words VARCHAR)');
  const unordered = await connection.createAppender('unordered');
  let waiting = 0;
  for await (const batch of readTexts(table, wanted, batchRows)) {
    for (const { id, messages } of batch) {
      const words = wordsOf(messages);
      unordered.appendInteger(placeOf.get(id)!);
      unordered.appendVarchar(words);
      unordered.endRow();
      waiting += words.length;
    }
    // The appender holds 200,000 rows before it hands them to the table, whatever their size.
    if (waiting < flushChars) continue;
    unordered.flushSync();
    waiting = 0;
  }
  unordered.closeSync();
  await connection.run('CREATE TEMP TABLE candidates AS SELECT * FROM unordered ORDER BY place');
  await connection.run('DROP TABLE unordered');
}
const flushChars = 16 << 20;

async function appendLost(
  connection: DuckDBConnection,
  lost: NearDuplicateRows,
  ids: Int32Array,
): Promise<void> {
  const near = await connection.createAppender('near');
  for (const [index, row] of lost.rows.entries()) {
    near.appendBigInt(BigInt(ids[row]!));
    near.appendBigInt(BigInt(ids[lost.kept[index]!]!));
    near.appendDouble(lost.jaccard[index]!);
    near.appendBigInt(BigInt(ids[lost.linked[index]!]!));
    near.appendDouble(lost.linkedJaccard[index]!);
    near.endRow();
  }
  near.closeSync();
}
