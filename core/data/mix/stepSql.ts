/** Cleaning steps as SQL over one source's rows. Where the condition of a step holds, the row is left out. */
import {
  describeStep,
  type CleanStep,
  type PlacedStep,
  type TextPart,
} from '../../shared/dataset/cleaning.ts';
import type { RecipeSource } from '../../shared/dataset/recipe.ts';
import type { RejectReason } from '../../shared/dataset/source.ts';
import { sqlString } from '../database.ts';

export interface StepSql {
  /** `clean[0]`, or `sources[1].filter`. */
  place: string;
  title: string;
  reason: RejectReason;
  /** True or null: the row stays out. */
  drops: string;
  /** What is said of the row. */
  detail: string;
  /** The user's own SQL, which has to be looked through before it runs. */
  where?: string;
}

/**
 * The view `rows` that conditions are written over: `label`, `file`, ..., and the words of each side. Lambdas of DuckDB.
 * @param languages columns of a table `languages ("row", ...)` that stands beside it
 */
export function rowsView(files: string, languages: readonly string[]): string {
  const of = (role: string) =>
    `array_to_string(list_transform(list_filter(messages, lambda m: m.role = '${role}'), lambda m: m.content), chr(10))`;
  return `SELECT "row", label, file, line, hash, messages,
      ${of('system')} AS system, ${of('user')} AS prompt, ${of('assistant')} AS answer,
      array_to_string(list_transform(messages, lambda m: m.content), chr(10)) AS conversation,
      len(list_filter(messages, lambda m: m.role = 'assistant')) AS turns
      ${languages.map((column) => `, ${column}`).join('')}
    FROM (SELECT "row", label, file, line, hash, from_json(messages, '[{"role":"VARCHAR","content":"VARCHAR"}]') AS messages
      FROM read_parquet(${files}, union_by_name = true)) ${languages.length > 0 ? 'JOIN languages USING ("row")' : ''}`;
}

/** Where the language of a part of the row stands. */
export function languageColumn(part: TextPart): string {
  return part === 'any' ? 'language' : `language_${part}`;
}

const columns: Record<TextPart, string> = {
  prompt: 'prompt',
  answer: 'answer',
  system: 'system',
  any: 'conversation',
};

/** Steps that words alone decide; `tokens` waits for the tokenizer, `roles` came with the rows. */
export function stepSql({ place, step }: PlacedStep): StepSql | null {
  const title = describeStep(step);
  const common = { place, title };
  switch (step.step) {
    case 'length': {
      const size = sizeOf(step);
      return {
        ...common,
        reason: 'filtered',
        drops: outside(size, step),
        detail: `${size} || ${sqlString(` ${step.unit}; wanted: ${title}`)}`,
      };
    }
    case 'regex': {
      const found = `regexp_matches(${columns[step.of]}, ${sqlString(step.pattern)}, ${step.ignoreCase ? "'i'" : "'c'"})`;
      return {
        ...common,
        reason: 'filtered',
        drops: step.drop === 'matching' ? found : `NOT ${found}`,
        detail: sqlString(
          `the ${title.replace(/ with.*/, '')} ${step.drop === 'matching' ? 'matches' : 'does not match'} /${step.pattern}/`,
        ),
      };
    }
    case 'sql':
      return {
        ...common,
        reason: 'filtered',
        // What is neither true nor false is not true, as in any WHERE.
        drops: `(${step.where}\n) IS NOT TRUE`,
        detail: sqlString(`not: ${step.where}`),
        where: step.where,
      };
    case 'refusals': {
      const openings = `list_transform(list_filter(messages, lambda m: m.role = 'assistant'), lambda m: left(m.content, ${step.within}))`;
      return phraseStep(common, 'refusal', step.phrases, `array_to_string(${openings}, chr(10))`);
    }
    case 'boilerplate':
      return phraseStep(common, 'boilerplate', step.phrases, 'answer');
    case 'language': {
      const keep = [...step.keep, ...(step.unknown === 'keep' ? ['unknown'] : [])];
      return {
        ...common,
        reason: 'language',
        drops: `${languageColumn(step.of)} NOT IN (${keep.map(sqlString).join(', ')})`,
        detail: `'looks like ' || ${languageColumn(step.of)}`,
      };
    }
    case 'tokens':
    case 'roles':
      return null;
  }
}

/** What a source's own `labels` and `filter` leave out, before any step. */
export function filterSql(source: RecipeSource, index: number): StepSql[] {
  const { minAnswerChars, maxAnswerChars, maxTurns } = source.filter ?? {};
  const answers = `list_sum(list_transform(list_filter(messages, lambda m: m.role = 'assistant'), lambda m: length(m.content)))`;
  const filter = (drops: string, what: string): StepSql => ({
    place: `sources[${index}].filter`,
    title: `no ${what}`,
    reason: 'filtered',
    drops,
    detail: sqlString(what),
  });
  return [
    ...(source.labels
      ? [
          {
            place: `sources[${index}].labels`,
            title: `labels ${source.labels.join(', ')}`,
            reason: 'filtered' as const,
            drops: `label NOT IN (${source.labels.map(sqlString).join(', ')})`,
            detail: `'label ' || label || ' is not asked for'`,
          },
        ]
      : []),
    ...(minAnswerChars === undefined
      ? []
      : [filter(`${answers} < ${minAnswerChars}`, `answer shorter than ${minAnswerChars} characters`)]),
    ...(maxAnswerChars === undefined
      ? []
      : [filter(`${answers} > ${maxAnswerChars}`, `answer longer than ${maxAnswerChars} characters`)]),
    ...(maxTurns === undefined ? [] : [filter(`turns > ${maxTurns}`, `more than ${maxTurns} turns`)]),
  ];
}

function sizeOf({ of, unit }: Extract<CleanStep, { step: 'length' }>): string {
  if (unit === 'turns') return 'turns';
  const text = columns[of];
  return unit === 'characters' ? `length(${text})` : `len(regexp_extract_all(${text}, '\\S+'))`;
}

function outside(size: string, { min, max }: { min?: number | undefined; max?: number | undefined }): string {
  return [min !== undefined && `${size} < ${min}`, max !== undefined && `${size} > ${max}`]
    .filter((part) => part !== false)
    .join(' OR ');
}

function phraseStep(
  common: { place: string; title: string },
  reason: 'refusal' | 'boilerplate',
  phrases: readonly string[],
  text: string,
): StepSql {
  // Typographic apostrophes are typed by models and by no one who writes a list.
  const plain = (sql: string) => `replace(lower(${sql}), '’', '''')`;
  const pattern = `(${phrases.map((phrase) => escapeRegex(phrase.toLowerCase().replaceAll('’', "'"))).join('|')})`;
  return {
    ...common,
    reason,
    drops: `regexp_matches(${plain(text)}, ${sqlString(pattern)})`,
    detail: `'says "' || regexp_extract(${plain(text)}, ${sqlString(pattern)}) || '"'`,
  };
}

function escapeRegex(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}
