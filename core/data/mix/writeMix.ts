import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from '../../shared/dataset/recipe.ts';
import { select, sqlString } from '../database.ts';
import { fileHash } from '../importSource.ts';
import type { MixRequest, MixResult } from './mixRequest.ts';
import { sourceName, type RowTable } from './rowTable.ts';
import type { Sifted } from './sift.ts';
import type { TokenStore } from './tokenStore.ts';
import { writeShard } from './writeShard.ts';

/** `mix.parquet`: every row as often as it comes, with its origin. */
export async function writeMixTable(table: RowTable, dir: string): Promise<void> {
  const { connection, sources } = table;
  const words = sources.map(
    ({ files, firstId }) =>
      `SELECT ${firstId} + "row" AS id, messages FROM read_parquet(${files}, union_by_name = true)`,
  );
  await connection.run(`COPY (SELECT drawn.split, position AS "row", ${sourceName(sources, 'source')} AS source, "row" AS source_row,
      label, file, line, hash, messages, tokens, target_tokens
      FROM (${words.join(' UNION ALL ')}) AS words JOIN drawn ON drawn.id = words.id JOIN rows ON rows.id = words.id
      ORDER BY drawn.split, position)
    TO ${sqlString(join(dir, 'mix.parquet'))} (FORMAT parquet, COMPRESSION zstd)`);
}

/** `rejects.parquet`: every other row with its reason, and what import had set aside. */
export async function writeRejects({ connection, sources }: RowTable, dir: string): Promise<void> {
  const name = sourceName(sources, 'source');
  await connection.run(`COPY (SELECT * FROM (
      SELECT ${name} AS source, "row" AS source_row, file, line, NULL AS field, reason, detail, step FROM rows WHERE reason IS NOT NULL
      UNION ALL SELECT ${name}, NULL, file, line, field, reason, detail, NULL FROM import_rejects) ORDER BY ALL)
    TO ${sqlString(join(dir, 'rejects.parquet'))} (FORMAT parquet, COMPRESSION zstd)`);
}

export async function writeShards(
  { reader }: RowTable,
  request: MixRequest,
  store: TokenStore,
  dir: string,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const split of ['train', 'validation'] as const) {
    const rows = await select<{ id: number; source: number }>(
      reader,
      `SELECT drawn.id, source FROM drawn JOIN rows ON rows.id = drawn.id WHERE drawn.split = '${split}' ORDER BY position`,
    );
    if (rows.length === 0) continue;
    await writeShard(
      join(dir, `${split}.safetensors`),
      {
        ids: Float64Array.from(rows, (row) => row.id),
        source: Int32Array.from(rows, (row) => row.source),
        sources: request.recipe.sources.map((source) => source.name),
        metadata: {
          tokenizer: request.tokenizer!.hash,
          template: request.recipe.template,
          split,
          seqLen: String(request.recipe.seqLen),
        },
      },
      store,
    );
  }
}

export function shardNames(request: MixRequest, result: { validationRows: number }): string[] {
  const folder = `shards/${request.tokenizer!.hash.slice(0, 12)}`;
  return [
    `${folder}/train.safetensors`,
    ...(result.validationRows > 0 ? [`${folder}/validation.safetensors`] : []),
  ];
}

export async function summarise(
  { connection }: RowTable,
  recipe: Recipe,
  tokenized: boolean,
): Promise<Omit<MixResult, 'contentHash'>> {
  const kept = await select<{
    source: number;
    split: string;
    rows: number;
    repeats: number;
    tokens: number | null;
    targets: number | null;
  }>(
    connection,
    `SELECT source, split, sum(copies)::BIGINT AS rows, sum(copies - 1)::BIGINT AS repeats,
       sum(tokens * copies)::DOUBLE AS tokens, sum(target_tokens * copies)::DOUBLE AS targets
     FROM rows WHERE reason IS NULL GROUP BY ALL`,
  );
  const rejected = await select<{ source: number; reason: string; n: number }>(
    connection,
    `SELECT source, reason, count(*) AS n FROM (
       SELECT source, reason FROM rows WHERE reason IS NOT NULL UNION ALL SELECT source, reason FROM import_rejects)
     GROUP BY ALL ORDER BY ALL`,
  );
  const sources = recipe.sources.map((source, index) => {
    const train = kept.find((k) => k.source === index && k.split === 'train');
    const validation = kept.find((k) => k.source === index && k.split === 'validation');
    const rejectedByReason = Object.fromEntries(
      rejected.filter((r) => r.source === index).map((r) => [r.reason, r.n]),
    );
    const rows = train?.rows ?? 0;
    const repeatedRows = train?.repeats ?? 0;
    const validationRows = validation?.rows ?? 0;
    return {
      name: source.name,
      rowsIn:
        rows - repeatedRows + validationRows + Object.values(rejectedByReason).reduce((sum, n) => sum + n, 0),
      rows,
      ...(repeatedRows > 0 && { repeatedRows }),
      validationRows,
      tokens: tokenized ? (train?.tokens ?? 0) : null,
      targetTokens: tokenized ? (train?.targets ?? 0) : null,
      rejectedByReason,
    };
  });
  const sum = (pick: (source: (typeof sources)[number]) => number | null) =>
    sources.reduce((total, source) => total + (pick(source) ?? 0), 0);
  return {
    rows: sum((s) => s.rows),
    validationRows: sum((s) => s.validationRows),
    tokens: tokenized ? sum((s) => s.tokens) : null,
    targetTokens: tokenized ? sum((s) => s.targetTokens) : null,
    sources,
  };
}

/** @returns the mix's content hash: that of its manifest, which holds every other file's. */
export async function writeManifest(
  dir: string,
  request: MixRequest,
  result: Omit<MixResult, 'contentHash'>,
  files: string[],
  { nearDuplicates, contamination }: Sifted,
): Promise<string> {
  const { recipe, tokenizer } = request;
  // The model's place on this disk is not part of the mix; its tokenizer is.
  const { model: _place, ...rest } = recipe;
  const manifest = {
    format: 'caravan-mix-1',
    recipe: rest,
    tokenizer: tokenizer && { model: tokenizer.modelName, hash: tokenizer.hash },
    inputs: recipe.sources.map((source, index) => ({
      name: source.name,
      contentHash: request.sources[index]!.contentHash,
    })),
    counts: result,
    ...(contamination && { contamination }),
    ...(nearDuplicates && { nearDuplicates }),
    files: Object.fromEntries(
      await Promise.all(
        files.map(async (file) => [file, (await fileHash(join(dir, file))).toString('hex')] as const),
      ),
    ),
  };
  const text = `${JSON.stringify(manifest, null, 2)}\n`;
  await writeFile(join(dir, 'manifest.json'), text);
  return createHash('sha256').update(text).digest('hex');
}
