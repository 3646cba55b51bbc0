import { CaravanError } from '../../shared/contract/errors.ts';
import { stepsOf, textParts, type TextPart } from '../../shared/dataset/cleaning.ts';
import type { Recipe } from '../../shared/dataset/recipe.ts';
import { sqlString } from '../database.ts';
import { languageOf } from './languageOf.ts';
import { readTexts, type LoadedSource, type RowTable } from './rowTable.ts';
import { checkCondition, lock, openSandbox, type Sandbox } from './sandbox.ts';
import { filterSql, languageColumn, rowsView, stepSql, type StepSql } from './stepSql.ts';

/** What acts on each source by words alone, in order. */
export function cleaningOf(recipe: Recipe): StepSql[][] {
  return recipe.sources.map((source, index) => [
    ...filterSql(source, index),
    ...stepsOf(recipe, source, index).flatMap((placed) => stepSql(placed) ?? []),
  ]);
}

/**
 * Rejects the rows that filters and cleaning steps leave out: each by the first step that does. Steps run in a database of
 * their own, since they may hold the user's SQL.
 */
export async function cleanRows(
  table: RowTable,
  recipe: Recipe,
  { memoryLimit, threads }: { memoryLimit: string; threads: number },
  stop: () => void,
): Promise<void> {
  const { connection } = table;
  await connection.run('CREATE TEMP TABLE cleaned (id BIGINT, step INTEGER, detail VARCHAR)');
  for (const [index, steps] of cleaningOf(recipe).entries()) {
    if (steps.length === 0) continue;
    stop();
    const source = table.sources[index]!;
    const sandbox = await openSandbox(pathsIn(source), memoryLimit, threads);
    try {
      const parts = textParts.filter((part) =>
        steps.some(({ drops }) => new RegExp(`\\b${languageColumn(part)}\\b`, 'i').test(drops)),
      );
      if (parts.length > 0) await fillLanguages(table, index, sandbox, parts);
      await sandbox.connection.run(
        `CREATE VIEW rows AS ${rowsView(source.files, parts.map(languageColumn))}`,
      );
      await lock(sandbox);
      for (const step of steps) await checkStep(sandbox, step);
      await collect(table, source, sandbox, steps);
    } finally {
      sandbox.close();
    }
    const pick = (column: keyof StepSql) =>
      `list_extract([${steps.map((step) => sqlString(step[column] ?? '')).join(', ')}], cleaned.step + 1)`;
    await connection.run(`UPDATE rows SET reason = ${pick('reason')}, step = ${pick('place')}, detail = cleaned.detail
      FROM cleaned WHERE cleaned.id = rows.id`);
    await connection.run('DELETE FROM cleaned');
  }
  await connection.run('DROP TABLE cleaned');
}

function pathsIn({ files }: LoadedSource): string[] {
  return [...files.matchAll(/'((?:[^']|'')*)'/g)].map(([, path]) => path!.replaceAll("''", "'"));
}

/** A step must read right and name columns that there are; both are known before any row is read. */
async function checkStep(sandbox: Sandbox, step: StepSql): Promise<void> {
  const field = step.where === undefined ? step.place : `${step.place}.where`;
  if (step.where !== undefined) await checkCondition(sandbox, step.where, field);
  try {
    await sandbox.connection.run(`SELECT ${step.drops} FROM rows LIMIT 0`);
  } catch (error) {
    throw asBadRecipe(error, step, field);
  }
}

function asBadRecipe(error: unknown, { title }: StepSql, field: string): unknown {
  const message = (error as Error).message.split('\n')[0]!;
  if (/Out of Memory/i.test(message)) return error;
  return new CaravanError('bad_recipe', `${title}: ${message}`, {
    place: { field },
    mend: 'The columns are row, label, file, line, hash, system, prompt, answer, conversation, turns, messages and language.',
    cause: error,
  });
}

/** All steps in one pass over the source. */
async function collect(
  { connection }: RowTable,
  { firstId }: LoadedSource,
  sandbox: Sandbox,
  steps: readonly StepSql[],
): Promise<void> {
  const chain = (value: (step: StepSql, index: number) => string) =>
    `CASE ${steps.map((step, index) => `WHEN ${step.drops} THEN ${value(step, index)}`).join(' ')} END`;
  const cleaned = await connection.createAppender('cleaned');
  try {
    const result = await sandbox.connection.stream(
      `SELECT "row", step, detail FROM (SELECT "row", ${chain((_, index) => String(index))} AS step,
         ${chain(({ detail }) => detail)} AS detail FROM rows) WHERE step IS NOT NULL`,
    );
    for (;;) {
      const chunk = await result.fetchChunk();
      if (!chunk || chunk.rowCount === 0) break;
      const numbers = chunk.getColumnValues(0) as bigint[];
      const which = chunk.getColumnValues(1) as number[];
      const details = chunk.getColumnValues(2) as (string | null)[];
      for (const [at, number] of numbers.entries()) {
        cleaned.appendBigInt(BigInt(firstId) + number);
        cleaned.appendInteger(which[at]!);
        cleaned.appendVarchar((details[at] ?? '').slice(0, 300).toWellFormed());
        cleaned.endRow();
      }
    }
  } catch (error) {
    // Only the user's own SQL can fail on a row (a cast, say).
    const own = steps.find(({ where }) => where !== undefined);
    throw own ? asBadRecipe(error, own, `${own.place}.where`) : error;
  } finally {
    cleaned.closeSync();
  }
}

const roles = { prompt: 'user', answer: 'assistant', system: 'system' } as const;

/** The table that steps and conditions about languages read. */
async function fillLanguages(
  table: RowTable,
  index: number,
  { connection }: Sandbox,
  parts: readonly TextPart[],
): Promise<void> {
  const columns = parts.map((part) => `${languageColumn(part)} VARCHAR`);
  await connection.run(`CREATE TABLE languages ("row" BIGINT, ${columns.join(', ')})`);
  const { firstId, rows } = table.sources[index]!;
  const own = new Uint8Array(firstId + rows).fill(1, firstId);
  const languages = await connection.createAppender('languages');
  for await (const batch of readTexts(table, own, 2048))
    for (const { id, messages } of batch) {
      languages.appendBigInt(BigInt(id - firstId));
      for (const part of parts) {
        const said = messages.filter(({ role }) => part === 'any' || role === roles[part]);
        languages.appendVarchar(languageOf(said.map(({ content }) => content).join('\n')) ?? 'unknown');
      }
      languages.endRow();
    }
  languages.closeSync();
}
