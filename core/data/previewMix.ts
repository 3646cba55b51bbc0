/** What building a recipe would give, with examples of what each step leaves out. Writes no mix. */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AddonTokenizer } from '../engine/AddonTypes.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { stepsOf } from '../shared/dataset/cleaning.ts';
import type { MixPreview, StepCount } from '../shared/dataset/preview.ts';
import type { Recipe } from '../shared/dataset/recipe.ts';
import type { Message, RejectReason } from '../shared/dataset/source.ts';
import { openDatabase, select } from './database.ts';
import { cleaningOf } from './mix/cleanRows.ts';
import { contaminationFile, writeContamination } from './mix/decontaminate.ts';
import { drawRows } from './mix/drawRows.ts';
import type { MixRequest } from './mix/mixRequest.ts';
import { loadRows, rowsStillIn, type RowTable } from './mix/rowTable.ts';
import { sift } from './mix/sift.ts';
import { encodeAll, tokenizeRows } from './mix/tokenizeRows.ts';
import { writeRejects } from './mix/writeMix.ts';
import type { AddonLoader, Report } from './protocol.ts';

/** Rows of each source that lengths are estimated from. */
const sampleRows = 2000;
const examplesShown = 5;
const exampleCharacters = 400;

export type PreviewResult = Omit<MixPreview, 'id'>;

export async function previewMix(
  request: MixRequest,
  loadAddon: AddonLoader,
  report: Report,
  cancelled: AbortSignal,
): Promise<PreviewResult> {
  const { recipe, outDir } = request;
  const scratch = `${outDir}.partial`;
  await rm(scratch, { recursive: true, force: true });
  await mkdir(join(scratch, 'spill'), { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), request.memoryLimit);
  const tokenizer = request.tokenizer ? await loadAddon().openTokenizer(request.tokenizer.path) : null;
  try {
    const stop = () => {
      if (cancelled.aborted) throw new CaravanError('cancelled', 'the preview was cancelled');
    };
    report({ done: 0, total: recipe.sources.length, unit: 'sources', stage: 'reading sources' });
    const table = await loadRows(database, recipe, request.sources);
    stop();
    const sifted = await sift({ table, request, loadAddon, report, stop });
    const problems: PreviewResult['problems'] = [];
    const work = tokenizer && {
      table,
      recipe,
      tokenizer,
      tokens: request.tokenizer!.tokens,
      threads: request.threads,
      report,
      stop,
    };
    const exact = work !== null && needsEveryLength(recipe);
    if (work && exact) await tokenizeRows(work, await rowsStillIn(table), null);
    const left = await countBySource(table, 'reason IS NULL');
    await drawRows(table, recipe, ({ place, message, mend }) =>
      problems.push({ field: place?.field ?? null, message, mend: mend ?? null }),
    );
    stop();
    const drawn = await drawnBySource(table);
    const tokens = work ? await (exact ? countedTokens(table, recipe) : estimate(work, table)) : null;
    const steps = await countSteps(table, recipe, tokenizer);
    await writeRejects(table, scratch);
    if (sifted.contamination) await writeContamination(table, join(scratch, contaminationFile));
    const preview: PreviewResult = {
      recipe,
      sources: table.sources.map(({ name }, index) => ({
        name,
        rowsIn: steps[index]!.rowsIn,
        available: left[index]!,
        ...drawn[index]!,
        steps: steps[index]!.steps,
        tokens: tokens?.[index] ?? null,
      })),
      contamination: sifted.contamination ?? [],
      problems,
    };
    await writeFile(join(scratch, 'preview.json'), JSON.stringify(preview));
    database.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rename(scratch, outDir);
    return preview;
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  } finally {
    tokenizer?.dispose();
  }
}

/** Where lengths decide what is drawn, no sample will do. */
function needsEveryLength(recipe: Recipe): boolean {
  return (
    (recipe.size !== undefined && 'tokens' in recipe.size) ||
    recipe.sources.some(
      (source, index) =>
        source.tokens !== undefined ||
        stepsOf(recipe, source, index).some(({ step }) => step.step === 'tokens'),
    )
  );
}

async function countBySource({ connection, sources }: RowTable, where: string): Promise<number[]> {
  const counts = await select<{ source: number; n: number }>(
    connection,
    `SELECT source, count(*) AS n FROM rows WHERE ${where} GROUP BY source`,
  );
  return sources.map((_, index) => counts.find(({ source }) => source === index)?.n ?? 0);
}

async function drawnBySource({ connection, sources }: RowTable) {
  const counts = await select<{ source: number; split: string; rows: number; repeats: number }>(
    connection,
    `SELECT source, split, sum(copies)::BIGINT AS rows, sum(copies - 1)::BIGINT AS repeats FROM rows
     WHERE reason IS NULL AND split IS NOT NULL GROUP BY ALL`,
  );
  const of = (index: number, split: string) =>
    counts.find((one) => one.source === index && one.split === split) ?? { rows: 0, repeats: 0 };
  return sources.map((_, index) => ({
    rows: of(index, 'train').rows,
    repeatedRows: of(index, 'train').repeats,
    validationRows: of(index, 'validation').rows,
  }));
}

type TokenCounts = NonNullable<PreviewResult['sources'][number]['tokens']>;

/** Of rows that were all tokenised. */
async function countedTokens({ connection, sources }: RowTable, recipe: Recipe): Promise<TokenCounts[]> {
  const counts = await select<
    { source: number } & Record<'tokens' | 'targets' | 'measured' | 'cut' | 'empty', number | null>
  >(
    connection,
    `SELECT source, sum(tokens * copies) FILTER (reason IS NULL AND split = 'train')::DOUBLE AS tokens,
       sum(target_tokens * copies) FILTER (reason IS NULL AND split = 'train')::DOUBLE AS targets, count(tokens) AS measured,
       count(*) FILTER (tokens = ${recipe.seqLen} AND reason IS NULL) AS cut, count(*) FILTER (reason = 'prompt_too_long') AS empty
     FROM rows GROUP BY source`,
  );
  return sources.map((_, index) => {
    const one = counts.find(({ source }) => source === index);
    return {
      tokens: one?.tokens ?? 0,
      targetTokens: one?.targets ?? 0,
      measuredRows: one?.measured ?? 0,
      exact: true,
      cutRows: one?.cut ?? 0,
      emptyRows: one?.empty ?? 0,
    };
  });
}

/** From the first rows of each source in the order of a hash. */
async function estimate(work: Parameters<typeof encodeAll>[0], table: RowTable): Promise<TokenCounts[]> {
  const { connection, sources } = table;
  const { seqLen } = work.recipe;
  const picked = await select<{ id: number; copies: number }>(
    connection,
    `SELECT id, copies FROM (SELECT id, copies, row_number() OVER (PARTITION BY source ORDER BY md5('sample:' || "row")) AS place
       FROM rows WHERE reason IS NULL AND split = 'train') WHERE place <= ${sampleRows}`,
  );
  const wanted = new Uint8Array(sources.reduce((sum, source) => sum + source.rows, 0));
  for (const { id } of picked) wanted[id] = 1;
  const sums = sources.map(() => ({ rows: 0, tokens: 0, targets: 0, cut: 0, empty: 0 }));
  for await (const batch of encodeAll(work, wanted))
    for (const { source, verdict } of batch) {
      const sum = sums[source]!;
      sum.rows++;
      if (verdict.reason !== null) sum.empty++;
      else {
        sum.tokens += Math.min(verdict.length, seqLen);
        sum.targets += verdict.targetTokens;
        if (verdict.length > seqLen) sum.cut++;
      }
    }
  const drawn = await drawnBySource(table);
  return sums.map(({ rows, tokens, targets, cut, empty }, index) => {
    const exact = rows === drawn[index]!.rows;
    const scale = exact || rows === 0 ? 1 : drawn[index]!.rows / rows;
    return {
      tokens: Math.round(tokens * scale),
      targetTokens: Math.round(targets * scale),
      measuredRows: rows,
      exact,
      cutRows: cut,
      emptyRows: empty,
    };
  });
}

/** Every step that acts on a source, with what it leaves out and the first rows of that. */
async function countSteps(
  table: RowTable,
  recipe: Recipe,
  tokenizer: AddonTokenizer | null,
): Promise<{ rowsIn: number; steps: StepCount[] }[]> {
  const { connection, sources } = table;
  const counts = await select<{ source: number; step: string; reason: RejectReason; n: number }>(
    connection,
    `SELECT source, coalesce(step, 'draw') AS step, reason, count(*) AS n FROM rows WHERE reason IS NOT NULL GROUP BY ALL
     UNION ALL SELECT source, 'import', reason, count(*) FROM import_rejects GROUP BY ALL ORDER BY ALL`,
  );
  const examples = await readExamples(table);
  return sources.map(({ rows }, index) => {
    const own = counts.filter(({ source }) => source === index);
    const imported = own.filter(({ step }) => step === 'import');
    const steps = [
      ...imported.map(({ reason }) => ({ step: 'import', title: 'set aside at import', reason })),
      ...plannedSteps(recipe, index, tokenizer !== null),
    ].map(({ step, title, reason }): StepCount => ({
      step,
      title,
      reason,
      rejected: own.find((one) => one.step === step && one.reason === reason)?.n ?? 0,
      examples: examples
        .filter((one) => one.source === index && one.step === step && one.reason === reason)
        .map(({ sourceRow, file, line, detail, prompt, answer }) => ({
          sourceRow,
          file,
          line,
          detail,
          prompt,
          answer,
        })),
    }));
    return { rowsIn: rows + imported.reduce((sum, { n }) => sum + n, 0), steps };
  });
}

/** In the order in which they act. */
function plannedSteps(
  recipe: Recipe,
  index: number,
  tokenized: boolean,
): Pick<StepCount, 'step' | 'title' | 'reason'>[] {
  const { dedup, decontaminate, validation } = recipe;
  const near = dedup !== 'none' && dedup !== 'exact';
  const cleaning = new Map<string, Pick<StepCount, 'step' | 'title' | 'reason'>>();
  for (const { place, title, reason } of cleaningOf(recipe)[index]!) {
    const before = cleaning.get(place);
    cleaning.set(place, { step: place, title: before ? `${before.title}, ${title}` : title, reason });
  }
  return [
    ...cleaning.values(),
    ...(dedup === 'none' ? [] : [{ step: 'dedup', title: 'no duplicates', reason: 'duplicate' as const }]),
    ...(decontaminate
      ? [{ step: 'decontaminate', title: 'no benchmarks', reason: 'contaminated' as const }]
      : []),
    ...(near ? [{ step: 'dedup', title: 'no near-duplicates', reason: 'near_duplicate' as const }] : []),
    ...(tokenized
      ? [
          ...stepsOf(recipe, recipe.sources[index]!, index).flatMap(({ place, step }) =>
            step.step === 'tokens'
              ? [{ step: place, title: `${step.of} within bounds of tokens`, reason: 'filtered' as const }]
              : [],
          ),
          { step: 'seqLen', title: 'an answer within seqLen', reason: 'prompt_too_long' as const },
        ]
      : []),
    ...(validation
      ? [{ step: 'validation', title: 'groups held out whole', reason: 'held_out_group' as const }]
      : []),
    { step: 'draw', title: 'rows drawn', reason: 'not_sampled' },
  ];
}

interface Example {
  source: number;
  step: string;
  reason: RejectReason;
  sourceRow: number | null;
  file: string;
  line: number;
  detail: string;
  prompt: string;
  answer: string;
}

async function readExamples({ connection, sources }: RowTable): Promise<Example[]> {
  const picked = await select<Omit<Example, 'prompt' | 'answer'>>(
    connection,
    `SELECT source, step, reason, "row" AS "sourceRow", file, line, detail FROM (
       SELECT source, coalesce(step, 'draw') AS step, reason, "row", file, line, detail,
         row_number() OVER (PARTITION BY source, step, reason ORDER BY id) AS place FROM rows WHERE reason IS NOT NULL
       UNION ALL SELECT source, 'import', reason, NULL, file, line, detail,
         row_number() OVER (PARTITION BY source, reason ORDER BY file, line) FROM import_rejects)
     WHERE place <= ${examplesShown} ORDER BY ALL`,
  );
  const words = new Map<string, Message[]>();
  for (const [index, { files }] of sources.entries()) {
    const numbers = picked.flatMap(({ source, sourceRow }) =>
      source === index && sourceRow !== null ? [sourceRow] : [],
    );
    if (numbers.length === 0) continue;
    const rows = await select<{ row: number; messages: string }>(
      connection,
      `SELECT "row", messages FROM read_parquet(${files}, union_by_name = true) WHERE "row" IN (${numbers.join(', ')})`,
    );
    for (const { row, messages } of rows) words.set(`${index} ${row}`, JSON.parse(messages) as Message[]);
  }
  return picked.map((one) => {
    const messages = words.get(`${one.source} ${one.sourceRow}`) ?? [];
    const said = (role: Message['role']) =>
      messages
        .filter((message) => message.role === role)
        .map(({ content }) => content)
        .join('\n')
        .slice(0, exampleCharacters)
        .toWellFormed();
    return { ...one, prompt: said('user'), answer: said('assistant') };
  });
}
