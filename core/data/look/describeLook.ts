/** Statistics of a dataset's rows: spreads, histograms and counts, of all and of each source or label. */
import type { DuckDBConnection } from '@duckdb/node-api';
import {
  binsPerOctave,
  type Fate,
  type GroupStatistics,
  type LookStatistics,
  type Spread,
  type TextColumn,
} from '../../shared/dataset/look.ts';
import { select, sqlString } from '../database.ts';
import type { LookFiles } from './lookProtocol.ts';
import { lookConnection } from './openLook.ts';

/** Groups told apart; the rest count as one. */
const maxGroups = 12;
const otherGroups = 'other';
const topValues = 30;
const measuresOf = ['turns', 'promptChars', 'answerChars', 'tokens', 'targetTokens'] as const;
type Measure = (typeof measuresOf)[number];

export async function describeLook({ files }: { files: LookFiles }): Promise<LookStatistics> {
  const { connection } = await lookConnection(files);
  const groupedBy = files.kind === 'mix' ? 'source' : 'label';
  const names = await select<{ name: string }>(
    connection,
    `SELECT coalesce("${groupedBy}", '') AS name FROM look.rows GROUP BY ALL ORDER BY count(*) DESC, name LIMIT ${maxGroups + 1}`,
  );
  const told = names.slice(0, names.length > maxGroups ? maxGroups - 1 : maxGroups).map(({ name }) => name);
  const group = `CASE WHEN coalesce("${groupedBy}", '') IN (${told.map(sqlString).join(', ')})
    THEN coalesce("${groupedBy}", '') ELSE ${sqlString(otherGroups)} END`;
  const all = (await groupStatistics(connection, 'NULL::VARCHAR')).get('')!;
  const groups = await groupStatistics(connection, group);
  await addRejects(connection, files, all, groups);
  const order = (name: string) => (told.includes(name) ? told.indexOf(name) : told.length);
  return {
    all,
    groupedBy,
    groups: [...groups.values()].sort((a, b) => order(a.name) - order(b.name)),
    values: await values(connection, files),
  };
}

/** By the name of the group; that of an expression that is null is ''. */
async function groupStatistics(
  connection: DuckDBConnection,
  group: string,
): Promise<Map<string, GroupStatistics>> {
  const spread = (column: Measure) =>
    `min("${column}") AS ${column}_min, max("${column}") AS ${column}_max, avg("${column}") AS ${column}_mean,
     sum("${column}")::DOUBLE AS ${column}_sum, quantile_cont("${column}", [0.1, 0.5, 0.9]) AS ${column}_q`;
  const rows = await select<Record<string, unknown>>(
    connection,
    `SELECT ${group} AS name, count(*) AS rows, count(*) FILTER (duplicate) AS duplicates, count(*) FILTER (system) AS with_system,
       count(fate) AS measured, count(*) FILTER (fate = 'whole') AS whole, count(*) FILTER (fate = 'cut') AS cut,
       count(*) FILTER (fate = 'untrained') AS untrained, ${measuresOf.map(spread).join(', ')}
     FROM looked GROUP BY ALL`,
  );
  const bins = await select<{ name: string | null; measure: Measure; bin: number; rows: number }>(
    connection,
    `WITH grouped AS (SELECT ${group} AS name, ${measuresOf.map((column) => `"${column}"`).join(', ')} FROM looked)
     ${measuresOf
       .map(
         (column) =>
           `SELECT name, '${column}' AS measure, floor(${binsPerOctave} * log2(1 + "${column}"))::INTEGER AS bin, count(*) AS rows
            FROM grouped WHERE "${column}" IS NOT NULL GROUP BY ALL`,
       )
       .join(' UNION ALL ')} ORDER BY bin`,
  );
  const result = new Map<string, GroupStatistics>();
  for (const row of rows) {
    const name = (row['name'] as string | null) ?? '';
    const own = bins.filter((bin) => (bin.name ?? '') === name);
    const spreadOf = (column: Measure): Spread | null => {
      if (row[`${column}_min`] === null) return null;
      const [q10, median, q90] = quantiles(row[`${column}_q`]);
      return {
        min: row[`${column}_min`] as number,
        max: row[`${column}_max`] as number,
        mean: row[`${column}_mean`] as number,
        sum: row[`${column}_sum`] as number,
        q10: q10!,
        median: median!,
        q90: q90!,
        bins: own.filter(({ measure }) => measure === column).map(({ bin, rows: n }) => ({ bin, rows: n })),
      };
    };
    result.set(name, {
      name,
      rows: row['rows'] as number,
      duplicates: row['duplicates'] as number,
      withSystem: row['with_system'] as number,
      turns: spreadOf('turns')!,
      promptChars: spreadOf('promptChars')!,
      answerChars: spreadOf('answerChars')!,
      tokens: spreadOf('tokens'),
      targetTokens: spreadOf('targetTokens'),
      fates:
        (row['measured'] as number) === 0
          ? null
          : (Object.fromEntries(
              (['whole', 'cut', 'untrained'] as const).map((fate) => [fate, row[fate] as number]),
            ) as Record<Fate, number>),
      rejectedByReason: null,
    });
  }
  return result;
}

function quantiles(value: unknown): number[] {
  const items = Array.isArray(value) ? value : ((value as { items?: unknown[] } | null)?.items ?? []);
  return items.map(Number);
}

/** Rejects of a source have no label: they count for all alone. */
async function addRejects(
  connection: DuckDBConnection,
  files: LookFiles,
  all: GroupStatistics,
  groups: Map<string, GroupStatistics>,
): Promise<void> {
  const rows = await select<{ source: string | null; reason: string; n: number }>(
    connection,
    'SELECT source, reason, count(*) AS n FROM look.rejects GROUP BY ALL ORDER BY n DESC',
  );
  all.rejectedByReason = {};
  for (const { source, reason, n } of rows) {
    all.rejectedByReason[reason] = (all.rejectedByReason[reason] ?? 0) + n;
    const own = files.kind === 'mix' ? groups.get(source ?? '') : undefined;
    if (own) (own.rejectedByReason ??= {})[reason] = n;
  }
}

async function values(connection: DuckDBConnection, files: LookFiles): Promise<LookStatistics['values']> {
  const columns: TextColumn[] =
    files.kind === 'mix' ? ['source', 'label', 'split', 'file'] : ['label', 'file'];
  return Promise.all(
    columns.map(async (column) => {
      const top = await select<{ value: string; rows: number }>(
        connection,
        `SELECT coalesce("${column}", '') AS value, count(*) AS rows FROM look.rows GROUP BY ALL ORDER BY rows DESC, value LIMIT ${topValues}`,
      );
      const [{ n } = { n: 0 }] = await select<{ n: number }>(
        connection,
        `SELECT count(DISTINCT coalesce("${column}", '')) AS n FROM look.rows`,
      );
      return { column, distinct: n, top };
    }),
  );
}
