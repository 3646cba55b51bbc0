/**
 * From sources to a mix: clean, drop duplicates, tokenise, hold out, sample, write. Every input row ends in mix.parquet
 * or, with its reason, in rejects.parquet; the same request over the same files writes the same bytes.
 */
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CaravanError } from '../shared/contract/errors.ts';
import { openDatabase } from './database.ts';
import { contaminationFile, writeContamination } from './mix/decontaminate.ts';
import { drawRows, throwProblem } from './mix/drawRows.ts';
import type { MixRequest, MixResult } from './mix/mixRequest.ts';
import { loadRows, rowsStillIn } from './mix/rowTable.ts';
import { sift } from './mix/sift.ts';
import { tokenizeRows } from './mix/tokenizeRows.ts';
import { TokenStore } from './mix/tokenStore.ts';
import {
  shardNames,
  summarise,
  writeManifest,
  writeMixTable,
  writeRejects,
  writeShards,
} from './mix/writeMix.ts';
import type { AddonLoader, Report } from './protocol.ts';

export async function buildMix(
  request: MixRequest,
  loadAddon: AddonLoader,
  report: Report,
  cancelled: AbortSignal,
): Promise<MixResult> {
  const { recipe, outDir } = request;
  const scratch = join(dirname(outDir), `.${outDir.split(/[\\/]/).at(-1)}.partial`);
  await rm(scratch, { recursive: true, force: true });
  await mkdir(join(scratch, 'spill'), { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), request.memoryLimit);
  const tokenizer = request.tokenizer ? await loadAddon().openTokenizer(request.tokenizer.path) : null;
  let store: TokenStore | null = null;
  try {
    const stop = () => {
      if (cancelled.aborted) throw new CaravanError('cancelled', 'building the mix was cancelled');
    };
    report({ done: 0, total: recipe.sources.length, unit: 'sources', stage: 'reading sources' });
    const table = await loadRows(database, recipe, request.sources);
    stop();
    const sifted = await sift({ table, request, loadAddon, report, stop });
    stop();
    const still = await rowsStillIn(table);
    if (tokenizer) {
      store = new TokenStore(join(scratch, 'spill', 'tokens'), still.length);
      const { tokens } = request.tokenizer!;
      await tokenizeRows(
        { table, recipe, tokenizer, tokens, threads: request.threads, report, stop },
        still,
        store,
      );
    }
    report({ done: 0, total: null, unit: 'rows', stage: 'drawing rows' });
    await drawRows(table, recipe, throwProblem);
    stop();
    report({ done: 0, total: null, unit: 'rows', stage: 'writing' });
    // DuckDB sorts and packs on a thread of its own while the tokens are gathered on this one.
    const shards = join(scratch, 'shards', request.tokenizer?.hash.slice(0, 12) ?? '');
    const written = await Promise.allSettled([
      writeMixTable(table, scratch),
      ...(store ? [writeShards(table, request, store, shards)] : []),
    ]);
    for (const one of written) if (one.status === 'rejected') throw one.reason;
    stop();
    await writeRejects(table, scratch);
    if (sifted.contamination) await writeContamination(table, join(scratch, contaminationFile));
    const result = await summarise(table, recipe, tokenizer !== null);
    const files = [
      'mix.parquet',
      'rejects.parquet',
      ...(sifted.contamination ? [contaminationFile] : []),
      ...(store ? shardNames(request, result) : []),
    ];
    const manifest = await writeManifest(scratch, request, result, files, sifted);
    database.close();
    store?.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rm(outDir, { recursive: true, force: true });
    await rename(scratch, outDir);
    const { contamination } = sifted;
    return { ...result, ...(contamination && { contamination }), contentHash: manifest };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  } finally {
    tokenizer?.dispose();
  }
}
