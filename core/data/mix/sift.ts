import type { ContaminationCount } from '../../shared/dataset/decontamination.ts';
import { nearDuplicateSettings } from '../../shared/dataset/dedup.ts';
import type { AddonLoader, Report } from '../protocol.ts';
import { cleanRows } from './cleanRows.ts';
import { decontaminate } from './decontaminate.ts';
import { dropNearDuplicates, type NearDuplicateSummary } from './dropNearDuplicates.ts';
import type { MixRequest } from './mixRequest.ts';
import { sourceName, type RowTable } from './rowTable.ts';

export interface Sifting {
  table: RowTable;
  request: Omit<MixRequest, 'outDir'>;
  loadAddon: AddonLoader;
  report: Report;
  stop: () => void;
}

/** What the stages found, for the manifest. */
export interface Sifted {
  /** Null where the recipe names no benchmark. */
  contamination: ContaminationCount[] | null;
  nearDuplicates: NearDuplicateSummary | null;
}

/** Everything that leaves rows out before any is tokenised or drawn. */
export async function sift({ table, request, loadAddon, report, stop }: Sifting): Promise<Sifted> {
  const { recipe, memoryLimit, threads } = request;
  report({ done: 0, total: null, unit: 'rows', stage: 'cleaning' });
  await cleanRows(table, recipe, { memoryLimit, threads }, stop);
  stop();
  if (recipe.dedup !== 'none') await dropDuplicates(table);
  stop();
  const contamination = recipe.decontaminate
    ? await decontaminate({
        table,
        settings: recipe.decontaminate,
        files: request.benchmarks,
        threads,
        loadAddon,
        report,
        stop,
      })
    : null;
  const settings = nearDuplicateSettings(recipe.dedup);
  return {
    contamination,
    nearDuplicates: settings
      ? await dropNearDuplicates({ table, settings, threads, loadAddon, report, stop })
      : null,
  };
}

/** Keeps the first of each set of equal rows, in the order of sources and rows. */
async function dropDuplicates({ connection, sources }: RowTable): Promise<void> {
  await connection.run(`UPDATE rows SET reason = 'duplicate', step = 'dedup',
      detail = 'same words as row ' || kept."row" || ' of ' || ${sourceName(sources, 'kept.source')}
    FROM (SELECT match_hash, min(id) AS id FROM rows WHERE reason IS NULL GROUP BY match_hash) AS first
      JOIN rows AS kept ON kept.id = first.id
    WHERE rows.reason IS NULL AND first.match_hash = rows.match_hash AND rows.id <> first.id`);
}
