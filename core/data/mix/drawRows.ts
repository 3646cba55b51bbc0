import type { DuckDBConnection } from '@duckdb/node-api';
import { CaravanError } from '../../shared/contract/errors.ts';
import {
  planDraw,
  share,
  type Available,
  type Shortage,
  type Wanted,
} from '../../shared/dataset/planDraw.ts';
import type { Recipe, RecipeSource } from '../../shared/dataset/recipe.ts';
import { select, sqlString } from '../database.ts';
import { reject, type RowTable } from './rowTable.ts';

/** Told of what stops a build; a build throws it, a preview goes on with what there is. */
export type OnProblem = (problem: CaravanError) => void;

export const throwProblem: OnProblem = (problem) => {
  throw problem;
};

/**
 * Holds out and draws by a hash of (seed, source, row): independent of machine, thread count and row order. Rows of one
 * group (see {@link holdOut}) are held out together or not at all. Fills `drawn`, one line for each time that a row comes.
 */
export async function drawRows(table: RowTable, recipe: Recipe, onProblem: OnProblem): Promise<void> {
  const { connection } = table;
  const held: number[] = [];
  for (const [index, source] of recipe.sources.entries()) {
    const n = await countRows(connection, `reason IS NULL AND source = ${index}`);
    if (n === 0) onProblem(await nothingLeft(connection, source, index));
    const perSource = recipe.validation?.perSource ?? 0;
    const count = perSource < 1 ? Math.round(perSource * n) : Math.round(perSource);
    const tooFew = n > 0 && count >= n;
    if (tooFew)
      onProblem(
        new CaravanError('no_rows', `source '${source.name}' has ${n} rows, too few to hold out ${count}`, {
          place: { field: 'validation.perSource' },
          mend: `Hold out at most ${n - 1} rows.`,
        }),
      );
    held.push(tooFew ? n - 1 : count);
  }
  const available = await holdOut(connection, recipe, held, onProblem);
  const plan = planDraw(recipe, available);
  if ((recipe.whenShort ?? 'fail') === 'fail')
    for (const one of plan.short) onProblem(shortOf(recipe, one, available));
  for (const [index, source] of recipe.sources.entries())
    await drawSource(connection, recipe, source, index, plan.wanted[index]!, available[index]!);
  const order = `md5(${sqlString(`${recipe.seed}:order:`)} || source || ':' || "row" || CASE WHEN copy = 0 THEN '' ELSE ':' || copy END)`;
  await connection.run(`CREATE TABLE drawn AS
    SELECT id, copy, split, row_number() OVER (PARTITION BY split ORDER BY ${order}, id, copy) - 1 AS position
    FROM (SELECT id, source, "row", split, unnest(range(copies)) AS copy FROM rows WHERE reason IS NULL)`);
}

async function countRows(connection: DuckDBConnection, where: string): Promise<number> {
  const [count] = await select<{ n: number }>(connection, `SELECT count(*) AS n FROM rows WHERE ${where}`);
  return count!.n;
}

/** Names the steps that took the most. */
async function nothingLeft(
  connection: DuckDBConnection,
  source: RecipeSource,
  index: number,
): Promise<CaravanError> {
  const causes = await select<{ reason: string; step: string | null; n: number }>(
    connection,
    `SELECT reason, step, count(*) AS n FROM (SELECT reason, step FROM rows WHERE source = ${index}
       UNION ALL SELECT reason, NULL FROM import_rejects WHERE source = ${index}) GROUP BY ALL ORDER BY n DESC, reason, step LIMIT 3`,
  );
  const told = causes.map(({ reason, step, n }) => `${n} ${reason}${step === null ? '' : ` (${step})`}`);
  const [cause] = causes;
  return new CaravanError(
    'no_rows',
    `source '${source.name}' has no row left to train on: ${told.join(', ') || 'it holds none'}`,
    {
      place: { field: `sources[${index}]` },
      mend:
        cause?.reason === 'prompt_too_long'
          ? 'Raise seqLen: no answer begins within it.'
          : `Loosen ${cause?.step ?? 'what left them out'}, or take the source out.`,
    },
  );
}

function shortOf(
  recipe: Recipe,
  { index, unit, asked, available, scale }: Shortage,
  all: readonly Available[],
): CaravanError {
  const { name, count } = recipe.sources[index]!;
  const spare = all.reduce(
    (sum, { rows, tokens }, other) => sum + (other === index ? 0 : unit === 'rows' ? rows : (tokens ?? 0)),
    0,
  );
  return new CaravanError(
    'no_rows',
    `source '${name}' is asked for ${asked} ${unit} but has ${available} to train on`,
    {
      place: {
        field:
          count === undefined
            ? recipe.size
              ? 'size'
              : `sources[${index}].tokens`
            : `sources[${index}].count`,
      },
      mend:
        `Ask for at most ${available}; or whenShort: scale (the whole mix at ${(scale * 100).toFixed(1)} %), ` +
        `whenShort: topUp (the rest from the other sources${spare === 0 ? ', which have none' : ''}), or replacement: true (rows come again).`,
    },
  );
}

function rowKey(recipe: Recipe, source: RecipeSource): string {
  return `md5(${sqlString(`${recipe.seed}:draw:${source.name}:`)} || "row")`;
}

/** Sets `copies` of one source's rows; those that come not once are not sampled. */
async function drawSource(
  connection: DuckDBConnection,
  recipe: Recipe,
  source: RecipeSource,
  index: number,
  { unit, amount }: Wanted,
  available: Available,
): Promise<void> {
  const { by = 'label', how, shares } = source.stratify ?? {};
  const stratum = source.stratify ? by : `''`;
  const strata = await select<{ stratum: string; rows: number; tokens: number | null }>(
    connection,
    `SELECT ${stratum} AS stratum, count(*) AS rows, sum(tokens)::DOUBLE AS tokens FROM rows
     WHERE reason IS NULL AND split IS NULL AND source = ${index} GROUP BY ALL ORDER BY ALL`,
  );
  const sizes = strata.map((one) => one[unit] ?? 0);
  const amounts = share(
    amount,
    strata.map((one, k) => (shares ? (shares[one.stratum] ?? 0) : how === 'equal' ? 1 : sizes[k]!)),
    source.replacement ? sizes.map((size) => (size > 0 ? Infinity : 0)) : sizes,
  );
  const values = strata.map((one, k) => {
    const size = sizes[k]!;
    const whole = size === 0 ? 0 : Math.floor(amounts[k]! / size);
    return `(${sqlString(one.stratum)}, ${whole}, ${amounts[k]! - whole * size})`;
  });
  if (values.length > 0) {
    const measure = unit === 'rows' ? 'count(*)' : 'sum(tokens)';
    await connection.run(`UPDATE rows SET split = 'train', copies = drawn.whole + CASE WHEN drawn.measure <= drawn.rest THEN 1 ELSE 0 END
      FROM (SELECT id, whole, rest, ${measure} OVER (PARTITION BY ${stratum} ORDER BY ${rowKey(recipe, source)}, id
              ROWS UNBOUNDED PRECEDING) AS measure
        FROM rows JOIN (VALUES ${values.join(', ')}) AS strata(stratum, whole, rest) ON strata.stratum = ${stratum}
        WHERE reason IS NULL AND split IS NULL AND source = ${index}) AS drawn
      WHERE drawn.id = rows.id`);
  }
  const most = Math.min(amount, available[unit] ?? 0);
  await reject(connection, {
    reason: 'not_sampled',
    step: null,
    detail: source.stratify
      ? `'the mix takes ${most} ${unit} of this source, by ${by}'`
      : `'the mix takes ${most} ${unit} of this source'`,
    where: `source = ${index} AND copies = 0`,
  });
}

/**
 * Marks `held` rows of each source as validation, whole groups at a time. Groups come in one order for all sources, so that
 * sources which share them hold out the same. What is left of a group that was held out (the last one may be larger than
 * what was still wanted) is set aside, never trained.
 * @returns what is left to train on, by source.
 */
async function holdOut(
  connection: DuckDBConnection,
  recipe: Recipe,
  held: readonly number[],
  onProblem: OnProblem,
): Promise<Available[]> {
  // A row that is alone in its group is drawn as one without.
  await connection.run(`CREATE TABLE shared_groups AS
    SELECT "group" FROM rows WHERE reason IS NULL AND "group" IS NOT NULL GROUP BY "group" HAVING count(*) > 1`);
  const grouped = '"group" IN (SELECT "group" FROM shared_groups)';
  const groupKey = `md5(${sqlString(`${recipe.seed}:group:`)} || "group")`;
  for (const [index, source] of recipe.sources.entries()) {
    if (held[index] === 0) continue;
    const own = rowKey(recipe, source);
    await connection.run(`UPDATE rows SET split = 'validation'
      FROM (SELECT id, row_number() OVER (ORDER BY CASE WHEN ${grouped} THEN ${groupKey} ELSE ${own} END, ${own}, id) AS place
        FROM rows WHERE reason IS NULL AND source = ${index}) AS drawn
      WHERE drawn.id = rows.id AND drawn.place <= ${held[index]}`);
  }
  await reject(connection, {
    reason: 'held_out_group',
    step: 'validation',
    detail: `'its group (rows of one original question) is held out for validation'`,
    where: `split IS NULL AND "group" IN (SELECT "group" FROM rows WHERE split = 'validation' AND ${grouped})`,
  });
  const left: Available[] = [];
  for (const [index, source] of recipe.sources.entries()) {
    const [one] = await select<Available>(
      connection,
      `SELECT count(*) AS rows, sum(tokens)::DOUBLE AS tokens FROM rows
       WHERE reason IS NULL AND split IS NULL AND source = ${index}`,
    );
    if (one!.rows === 0 && held[index]! > 0)
      onProblem(
        new CaravanError(
          'no_rows',
          `source '${source.name}' has no row left to train on: all belong to groups that validation holds out`,
          { place: { field: 'validation.perSource' }, mend: 'Hold out fewer rows.' },
        ),
      );
    left.push(one!);
  }
  return left;
}
