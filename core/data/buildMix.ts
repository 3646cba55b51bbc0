/**
 * From sources to a mix: filter, drop duplicates, tokenise, hold out, sample, write. Every input row ends in mix.parquet
 * or, with its reason, in rejects.parquet; the same request over the same files writes the same bytes.
 */
import { createHash } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import type { AddonTokenizer } from '../engine/AddonTypes.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { nearDuplicateSettings } from '../shared/dataset/dedup.ts';
import type { Recipe, RecipeSource } from '../shared/dataset/recipe.ts';
import type { Message, RejectReason } from '../shared/dataset/source.ts';
import { renderTemplate, type TemplateTokens } from '../shared/dataset/template.ts';
import { openDatabase, select, sqlString } from './database.ts';
import { dropNearDuplicates, type NearDuplicateSummary } from './dropNearDuplicates.ts';
import { encodeConversations } from '../prompt/encodeConversations.ts';
import { fileHash } from './importSource.ts';
import { renderJinja } from '../prompt/renderJinja.ts';
import type { AddonLoader, Report } from './protocol.ts';

export interface MixRequest {
  recipe: Recipe;
  /** One per source of the recipe, in its order. */
  sources: { dir: string; contentHash: string }[];
  /** Null: the mix holds text alone. */
  tokenizer: { path: string; hash: string; modelName: string; tokens: TemplateTokens } | null;
  /** Must not exist, or be an earlier mix. */
  outDir: string;
  memoryLimit: string;
  threads: number;
}

export interface MixResult {
  rows: number;
  validationRows: number;
  tokens: number | null;
  targetTokens: number | null;
  sources: {
    name: string;
    rowsIn: number;
    rows: number;
    validationRows: number;
    tokens: number | null;
    targetTokens: number | null;
    rejectedByReason: Record<string, number>;
  }[];
  contentHash: string;
}

/** Conversations tokenised at a time. */
const batchRows = 2000;

export async function buildMix(
  request: MixRequest,
  loadAddon: AddonLoader,
  report: Report,
  cancelled: AbortSignal,
): Promise<MixResult> {
  const { recipe, outDir } = request;
  const scratch = join(dirname(outDir), `.${outDir.split(/[\\/]/).at(-1)}.partial`);
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), request.memoryLimit);
  const tokenizer = request.tokenizer ? await loadAddon().openTokenizer(request.tokenizer.path) : null;
  try {
    const { connection } = database;
    const stop = () => {
      if (cancelled.aborted) throw new CaravanError('cancelled', 'building the mix was cancelled');
    };
    report({ done: 0, total: recipe.sources.length, unit: 'sources', stage: 'reading sources' });
    await loadSources(connection, request);
    stop();
    await filterRows(connection, recipe.sources);
    if (recipe.dedup !== 'none') await dropDuplicates(connection, recipe.sources);
    stop();
    const near = nearDuplicateSettings(recipe.dedup);
    const nearDuplicates = near
      ? await dropNearDuplicates({
          connection,
          settings: near,
          names: recipe.sources.map((source) => source.name),
          threads: request.threads,
          loadAddon,
          report,
          stop,
        })
      : null;
    stop();
    const encoded = tokenizer ? await tokenizeRows(connection, request, tokenizer, report, stop) : null;
    await drawRows(connection, recipe);
    stop();
    report({ done: 0, total: null, unit: 'rows', stage: 'writing' });
    await writeTables(connection, recipe, scratch);
    if (encoded && request.tokenizer)
      await writeShards(
        connection,
        request,
        encoded,
        loadAddon,
        join(scratch, 'shards', request.tokenizer.hash.slice(0, 12)),
      );
    const result = await summarise(connection, recipe, tokenizer !== null);
    const files = ['mix.parquet', 'rejects.parquet', ...(encoded ? shardNames(request, result) : [])];
    const manifest = await writeManifest(scratch, request, result, files, nearDuplicates);
    database.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rm(outDir, { recursive: true, force: true });
    await rename(scratch, outDir);
    return { ...result, contentHash: manifest };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  } finally {
    tokenizer?.dispose();
  }
}

/** `rows`: every row of every source with its fate; `reason` null means still in. */
async function loadSources(connection: DuckDBConnection, request: MixRequest): Promise<void> {
  await connection.run(`CREATE TABLE rows (
    id BIGINT, source INTEGER, "row" BIGINT, label VARCHAR, file VARCHAR, line BIGINT, hash VARCHAR, match_hash VARCHAR,
    "group" VARCHAR, messages VARCHAR, tokens INTEGER, target_tokens INTEGER, split VARCHAR, position BIGINT,
    reason VARCHAR, detail VARCHAR)`);
  await connection.run(
    'CREATE TABLE import_rejects (source INTEGER, file VARCHAR, line BIGINT, field VARCHAR, reason VARCHAR, detail VARCHAR)',
  );
  for (const [index, source] of request.sources.entries()) {
    await connection.run(`INSERT INTO rows
      SELECT (SELECT count(*) FROM rows) + "row", ${index}, "row", label, file, line, hash, match_hash, ${await groupColumn(connection, source.dir)}, messages,
        NULL, NULL, NULL, NULL, NULL, NULL
      FROM read_parquet(${sqlString(join(source.dir, 'rows.parquet'))}) ORDER BY "row"`);
    await connection.run(`INSERT INTO import_rejects
      SELECT ${index}, * FROM read_parquet(${sqlString(join(source.dir, 'rejects.parquet'))})`);
  }
}

/** Sources imported by an earlier version have no groups. */
async function groupColumn(connection: DuckDBConnection, dir: string): Promise<string> {
  const columns = await select<{ column_name: string }>(
    connection,
    `DESCRIBE SELECT * FROM read_parquet(${sqlString(join(dir, 'rows.parquet'))})`,
  );
  return columns.some(({ column_name }) => column_name === 'group') ? '"group"' : 'NULL';
}

async function reject(
  connection: DuckDBConnection,
  reason: RejectReason,
  detail: string,
  where: string,
): Promise<void> {
  await connection.run(
    `UPDATE rows SET reason = ${sqlString(reason)}, detail = ${detail} WHERE reason IS NULL AND (${where})`,
  );
}

async function filterRows(connection: DuckDBConnection, sources: RecipeSource[]): Promise<void> {
  for (const [index, source] of sources.entries()) {
    const own = `source = ${index}`;
    if (source.labels)
      await reject(
        connection,
        'filtered',
        `'label ' || label || ' is not asked for'`,
        `${own} AND label NOT IN (${source.labels.map(sqlString).join(', ')})`,
      );
    const { minAnswerChars, maxAnswerChars, maxTurns } = source.filter ?? {};
    const answers = `list_filter(from_json(messages, '[{"role":"VARCHAR","content":"VARCHAR"}]'), m -> m.role = 'assistant')`;
    const chars = `list_sum(list_transform(${answers}, m -> length(m.content)))`;
    if (minAnswerChars !== undefined)
      await reject(
        connection,
        'filtered',
        `'answer shorter than ${minAnswerChars} characters'`,
        `${own} AND ${chars} < ${minAnswerChars}`,
      );
    if (maxAnswerChars !== undefined)
      await reject(
        connection,
        'filtered',
        `'answer longer than ${maxAnswerChars} characters'`,
        `${own} AND ${chars} > ${maxAnswerChars}`,
      );
    if (maxTurns !== undefined)
      await reject(
        connection,
        'filtered',
        `'more than ${maxTurns} turns'`,
        `${own} AND len(${answers}) > ${maxTurns}`,
      );
  }
}

/** Keeps the first of each set of equal rows, in the order of sources and rows. */
async function dropDuplicates(connection: DuckDBConnection, sources: RecipeSource[]): Promise<void> {
  const names = `list_extract([${sources.map((source) => sqlString(source.name)).join(', ')}], kept.source + 1)`;
  await connection.run(`UPDATE rows SET reason = 'duplicate', detail = 'same words as row ' || kept."row" || ' of ' || ${names}
    FROM (SELECT match_hash, min(id) AS id FROM rows WHERE reason IS NULL GROUP BY match_hash) AS first
      JOIN rows AS kept ON kept.id = first.id
    WHERE rows.reason IS NULL AND first.match_hash = rows.match_hash AND rows.id <> first.id`);
}

/** Ids and targets of every row still in, by row id. */
type Encoded = Map<number, { ids: Int32Array; targets: Uint8Array }>;

async function tokenizeRows(
  connection: DuckDBConnection,
  request: MixRequest,
  tokenizer: AddonTokenizer,
  report: Report,
  stop: () => void,
): Promise<Encoded> {
  const { recipe } = request;
  const { tokens } = request.tokenizer!;
  const total = (
    await select<{ n: number }>(connection, 'SELECT count(*) AS n FROM rows WHERE reason IS NULL')
  )[0]!.n;
  const encoded: Encoded = new Map();
  await connection.run(
    'CREATE TABLE counts (id BIGINT, tokens INTEGER, target_tokens INTEGER, reason VARCHAR, detail VARCHAR)',
  );
  const counts = await connection.createAppender('counts');
  for (let after = -1, done = 0; ;) {
    stop();
    const rows = await select<{ id: number; messages: string }>(
      connection,
      `SELECT id, messages FROM rows WHERE reason IS NULL AND id > $after ORDER BY id LIMIT ${batchRows}`,
      { after },
    );
    if (rows.length === 0) break;
    after = rows.at(-1)!.id;
    const conversations = rows.map((row) =>
      renderTemplate(recipe.template, JSON.parse(row.messages) as Message[], tokens, renderJinja),
    );
    const results = await encodeConversations(tokenizer, conversations, request.threads);
    for (const [index, { ids, targets }] of results.entries()) {
      const cut = cutToLength(ids, targets, recipe.seqLen);
      counts.appendBigInt(BigInt(rows[index]!.id));
      counts.appendInteger(ids.length);
      counts.appendInteger(cut.targetTokens);
      if (cut.reason) {
        counts.appendVarchar(cut.reason);
        counts.appendVarchar(
          `${ids.length} tokens, the limit is ${recipe.seqLen}; the answer begins at token ${cut.firstTarget + 1}`,
        );
      } else {
        counts.appendNull();
        counts.appendNull();
        encoded.set(rows[index]!.id, {
          ids: ids.subarray(0, recipe.seqLen),
          targets: targets.subarray(0, recipe.seqLen),
        });
      }
      counts.endRow();
    }
    done += rows.length;
    report({ done, total, unit: 'rows', stage: 'tokenising' });
  }
  counts.closeSync();
  await connection.run(`UPDATE rows SET tokens = least(counts.tokens, ${recipe.seqLen}), target_tokens = counts.target_tokens,
    reason = counts.reason, detail = counts.detail FROM counts WHERE counts.id = rows.id`);
  return encoded;
}

/** A row is dropped when no answer token is left after the cut; a longer answer is cut and still trains. */
function cutToLength(
  ids: Int32Array,
  targets: Uint8Array,
  seqLen: number,
): { targetTokens: number; firstTarget: number; reason: RejectReason | null } {
  let targetTokens = 0;
  const length = Math.min(ids.length, seqLen);
  for (let i = 0; i < length; i++) targetTokens += targets[i]!;
  const firstTarget = targets.indexOf(1);
  // The first token of a row is never predicted, so it cannot be the only target.
  const usable = targetTokens - (targets[0] ?? 0);
  return { targetTokens, firstTarget, reason: usable > 0 ? null : 'prompt_too_long' };
}

/**
 * Holds out and samples by a hash of (seed, source, row): independent of machine, thread count and row order. Rows of one
 * group (see {@link holdOut}) are held out together or not at all.
 */
async function drawRows(connection: DuckDBConnection, recipe: Recipe): Promise<void> {
  const held: number[] = [];
  for (const [index, source] of recipe.sources.entries()) {
    const n = (
      await select<{ n: number }>(
        connection,
        `SELECT count(*) AS n FROM rows WHERE reason IS NULL AND source = ${index}`,
      )
    )[0]!.n;
    if (n === 0)
      throw new CaravanError(
        'no_rows',
        `source '${source.name}' has no row left after filters, duplicates and length`,
        {
          place: { field: `sources[${index}]` },
          mend: 'Loosen its filter or raise seqLen; rejected rows and reasons are listed by the import and by a mix without this source.',
        },
      );
    const perSource = recipe.validation?.perSource ?? 0;
    const count = perSource < 1 ? Math.round(perSource * n) : Math.round(perSource);
    if (count >= n)
      throw new CaravanError(
        'no_rows',
        `source '${source.name}' has ${n} rows, too few to hold out ${count}`,
        {
          place: { field: 'validation.perSource' },
        },
      );
    held.push(count);
  }
  const available = await holdOut(connection, recipe, held);
  const wanted = wantedCounts(recipe, available);
  for (const [index, source] of recipe.sources.entries()) {
    await connection.run(`UPDATE rows SET split = 'train',
        reason = CASE WHEN drawn.place > ${wanted[index]} THEN 'not_sampled' END,
        detail = CASE WHEN drawn.place > ${wanted[index]} THEN 'the mix takes ${wanted[index]} rows of this source' END
      FROM (SELECT id, row_number() OVER (ORDER BY ${rowKey(recipe, source)}, id) AS place
        FROM rows WHERE reason IS NULL AND split IS NULL AND source = ${index}) AS drawn
      WHERE drawn.id = rows.id`);
  }
  await connection.run(`UPDATE rows SET position = placed.position FROM (
      SELECT id, row_number() OVER (PARTITION BY split ORDER BY md5(${sqlString(`${recipe.seed}:order:`)} || source || ':' || "row"), id) - 1 AS position
      FROM rows WHERE reason IS NULL) AS placed WHERE placed.id = rows.id`);
}

function rowKey(recipe: Recipe, source: RecipeSource): string {
  return `md5(${sqlString(`${recipe.seed}:draw:${source.name}:`)} || "row")`;
}

/**
 * Marks `held` rows of each source as validation, whole groups at a time. Groups come in one order for all sources, so that
 * sources which share them hold out the same. What is left of a group that was held out (the last one may be larger than
 * what was still wanted) is set aside, never trained.
 * @returns rows left to train on, by source.
 */
async function holdOut(
  connection: DuckDBConnection,
  recipe: Recipe,
  held: readonly number[],
): Promise<number[]> {
  // A row that is alone in its group is drawn as one without.
  await connection.run(`CREATE TABLE shared_groups AS
    SELECT "group" FROM rows WHERE reason IS NULL AND "group" IS NOT NULL GROUP BY "group" HAVING count(*) > 1`);
  const grouped = '"group" IN (SELECT "group" FROM shared_groups)';
  const groupKey = `md5(${sqlString(`${recipe.seed}:group:`)} || "group")`;
  for (const [index, source] of recipe.sources.entries()) {
    const own = rowKey(recipe, source);
    await connection.run(`UPDATE rows SET split = 'validation'
      FROM (SELECT id, row_number() OVER (ORDER BY CASE WHEN ${grouped} THEN ${groupKey} ELSE ${own} END, ${own}, id) AS place
        FROM rows WHERE reason IS NULL AND source = ${index}) AS drawn
      WHERE drawn.id = rows.id AND drawn.place <= ${held[index]}`);
  }
  await reject(
    connection,
    'held_out_group',
    `'its group (rows of one original question) is held out for validation'`,
    `split IS NULL AND "group" IN (SELECT "group" FROM rows WHERE split = 'validation' AND ${grouped})`,
  );
  const left: number[] = [];
  for (const [index, source] of recipe.sources.entries()) {
    const [{ n } = { n: 0 }] = await select<{ n: number }>(
      connection,
      `SELECT count(*) AS n FROM rows WHERE reason IS NULL AND split IS NULL AND source = ${index}`,
    );
    if (n === 0)
      throw new CaravanError(
        'no_rows',
        `source '${source.name}' has no row left to train on: all belong to groups that validation holds out`,
        { place: { field: 'validation.perSource' }, mend: 'Hold out fewer rows.' },
      );
    left.push(n);
  }
  return left;
}

/** Training rows per source: counts as asked; weights scaled to the largest mix that needs no row twice; else all. */
function wantedCounts(recipe: Recipe, available: number[]): number[] {
  const scale = Math.min(
    ...recipe.sources.map((source, index) =>
      source.weight === undefined ? Infinity : available[index]! / source.weight,
    ),
  );
  return recipe.sources.map((source, index) => {
    if (source.count !== undefined) {
      if (source.count > available[index]!)
        throw new CaravanError(
          'no_rows',
          `source '${source.name}' is asked for ${source.count} rows but has ${available[index]} to train on`,
          {
            place: { field: `sources[${index}].count` },
            mend: `Ask for at most ${available[index]}, or use weights.`,
          },
        );
      return source.count;
    }
    return source.weight === undefined ? available[index]! : Math.floor(source.weight * scale + 1e-9);
  });
}

async function writeTables(connection: DuckDBConnection, recipe: Recipe, dir: string): Promise<void> {
  const names = `list_extract([${recipe.sources.map((source) => sqlString(source.name)).join(', ')}], source + 1)`;
  await connection.run(`COPY (SELECT split, position AS "row", ${names} AS source, "row" AS source_row, label, file, line, hash, messages, tokens, target_tokens
      FROM rows WHERE reason IS NULL ORDER BY split, position)
    TO ${sqlString(join(dir, 'mix.parquet'))} (FORMAT parquet, COMPRESSION zstd)`);
  await connection.run(`COPY (SELECT * FROM (
      SELECT ${names} AS source, "row" AS source_row, file, line, NULL AS field, reason, detail FROM rows WHERE reason IS NOT NULL
      UNION ALL SELECT ${names}, NULL, file, line, field, reason, detail FROM import_rejects) ORDER BY ALL)
    TO ${sqlString(join(dir, 'rejects.parquet'))} (FORMAT parquet, COMPRESSION zstd)`);
}

async function writeShards(
  connection: DuckDBConnection,
  request: MixRequest,
  encoded: Encoded,
  loadAddon: AddonLoader,
  dir: string,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const split of ['train', 'validation'] as const) {
    const rows = await select<{ id: number; source: number; tokens: number }>(
      connection,
      `SELECT id, source, tokens FROM rows WHERE reason IS NULL AND split = '${split}' ORDER BY position`,
    );
    if (rows.length === 0) continue;
    const total = rows.reduce((sum, row) => sum + row.tokens, 0);
    const ids = new Int32Array(total);
    const targets = new Uint8Array(total);
    const offsets = new Float64Array(rows.length + 1);
    for (const [index, row] of rows.entries()) {
      const at = offsets[index]!;
      const one = encoded.get(row.id)!;
      ids.set(one.ids, at);
      targets.set(one.targets, at);
      offsets[index + 1] = at + one.ids.length;
    }
    await loadAddon().writeTokenShard(join(dir, `${split}.safetensors`), {
      ids,
      targets,
      offsets,
      source: Int32Array.from(rows, (row) => row.source),
      sources: request.recipe.sources.map((source) => source.name),
      metadata: {
        tokenizer: request.tokenizer!.hash,
        template: request.recipe.template,
        split,
        seqLen: String(request.recipe.seqLen),
      },
    });
  }
}

function shardNames(request: MixRequest, result: { validationRows: number }): string[] {
  const folder = `shards/${request.tokenizer!.hash.slice(0, 12)}`;
  return [
    `${folder}/train.safetensors`,
    ...(result.validationRows > 0 ? [`${folder}/validation.safetensors`] : []),
  ];
}

async function summarise(
  connection: DuckDBConnection,
  recipe: Recipe,
  tokenized: boolean,
): Promise<Omit<MixResult, 'contentHash'>> {
  const kept = await select<{
    source: number;
    split: string;
    rows: number;
    tokens: number | null;
    targets: number | null;
  }>(
    connection,
    `SELECT source, split, count(*) AS rows, sum(tokens)::DOUBLE AS tokens, sum(target_tokens)::DOUBLE AS targets
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
    const validationRows = validation?.rows ?? 0;
    return {
      name: source.name,
      rowsIn: rows + validationRows + Object.values(rejectedByReason).reduce((sum, n) => sum + n, 0),
      rows,
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
async function writeManifest(
  dir: string,
  request: MixRequest,
  result: Omit<MixResult, 'contentHash'>,
  files: string[],
  nearDuplicates: NearDuplicateSummary | null,
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
