/** A recipe while it is being put together: what the form changes, and what is wrong with it so far. */
import type * as z from 'zod';
import type { CleanStep } from '../../../core/shared/dataset/cleaning.ts';
import { mixPresetNames, mixPresets } from '../../../core/shared/dataset/presets.ts';
import { planDraw, type DrawPlan } from '../../../core/shared/dataset/planDraw.ts';
import { recipeProblems, recipeSchema, type Recipe } from '../../../core/shared/dataset/recipe.ts';
import type { Source } from '../../../core/shared/dataset/source.ts';

export type RecipeDraft = z.input<typeof recipeSchema>;
export type SourceDraft = RecipeDraft['sources'][number];

export interface RecipeProblem {
  field: string;
  message: string;
  mend?: string | null;
}

export function emptyRecipe(): RecipeDraft {
  return { name: '', sources: [] };
}

const amounts = ['count', 'weight', 'fraction', 'tokens'] as const;
export type AmountKind = 'all' | (typeof amounts)[number];
export const amountWords: Record<AmountKind, string> = {
  all: 'All rows',
  count: 'Rows',
  weight: 'Weight',
  fraction: 'Share of it',
  tokens: 'Tokens',
};

export function amountOf(source: SourceDraft): { kind: AmountKind; value: number | null } {
  for (const kind of amounts) {
    const value = source[kind];
    if (value !== undefined) return { kind, value };
  }
  return { kind: 'all', value: null };
}

export function withAmount(source: SourceDraft, kind: AmountKind, value: number | null): SourceDraft {
  const { count: _c, weight: _w, fraction: _f, tokens: _t, ...rest } = source;
  return kind === 'all' || value === null ? rest : { ...rest, [kind]: value };
}

/** A first value when the kind of amount changes, so that the field is never empty. */
export function firstAmount(kind: AmountKind, rows: number, total: number | null): number | null {
  if (kind === 'count') return Math.max(1, Math.min(rows, total ?? rows));
  if (kind === 'weight') return 1;
  if (kind === 'fraction') return 0.5;
  return kind === 'tokens' ? 1_000_000 : null;
}

/** Another source of the library, under a name that no other has. */
export function addSource(draft: RecipeDraft, source: Source): RecipeDraft {
  const taken = new Set(draft.sources.map(({ name }) => name));
  let name = source.name;
  for (let n = 2; taken.has(name); n++) name = `${source.name}-${n}`;
  return { ...draft, sources: [...draft.sources, { name, source: source.name }] };
}

/** The paper's two mixes, over whatever sources there are: rows of each of the three kinds. */
export const draftPresets = mixPresetNames.map((id) => {
  const { slimorca, magicoder, metamath } = mixPresets[id];
  return { id, title: id.toUpperCase(), counts: { general: slimorca, code: magicoder, math: metamath } };
});
type Kind = 'general' | 'code' | 'math';

/** What a source is of the three, by its name and format; null where neither says. */
export function kindOfSource({ name, format }: Pick<Source, 'name' | 'format'>): Kind | null {
  if (/math|gsm/i.test(name) || format === 'query-response') return 'math';
  if (/code|magic|oss|evol/i.test(name) || format === 'problem-solution' || format === 'instruction-response')
    return 'code';
  if (/orca|chat|general/i.test(name) || format === 'sharegpt') return 'general';
  return null;
}

/**
 * The preset's counts laid over the sources: those of one kind share its rows by their sizes.
 * @returns the kinds for which there is no source, too
 */
export function applyPreset(
  draft: RecipeDraft,
  preset: (typeof draftPresets)[number],
  library: readonly Source[],
): { draft: RecipeDraft; missing: Kind[] } {
  const kinds = library.flatMap((source) => {
    const kind = kindOfSource(source);
    return kind ? [{ source, kind }] : [];
  });
  const missing: Kind[] = [];
  const sources: SourceDraft[] = [];
  for (const kind of ['general', 'code', 'math'] as const) {
    const own = kinds.filter((one) => one.kind === kind).map(({ source }) => source);
    if (own.length === 0) missing.push(kind);
    const all = own.reduce((sum, { rows }) => sum + rows, 0);
    let left: number = preset.counts[kind];
    for (const [index, source] of own.entries()) {
      const count =
        index === own.length - 1 ? left : Math.floor((preset.counts[kind] * source.rows) / Math.max(1, all));
      left -= count;
      if (count > 0) sources.push({ name: source.name, source: source.name, count });
    }
  }
  const named = draft.name === '' ? preset.id : draft.name;
  return { draft: { ...draft, name: named, sources }, missing };
}

/** The recipe where it is whole; else what is wrong with it, by field. */
export function checkDraft(draft: RecipeDraft): { recipe: Recipe | null; problems: RecipeProblem[] } {
  const parsed = recipeSchema.safeParse(draft);
  if (!parsed.success)
    return {
      recipe: null,
      problems: parsed.error.issues.map(({ path, message }) => ({
        field: path
          .map((key, at) => (typeof key === 'number' ? `[${key}]` : `${at === 0 ? '' : '.'}${String(key)}`))
          .join(''),
        message:
          path.join('.') === 'name'
            ? 'the mix has no name yet'
            : path.join('.') === 'sources'
              ? 'no source is chosen yet'
              : message,
      })),
    };
  const problems = recipeProblems(parsed.data);
  return { recipe: problems.length === 0 ? parsed.data : null, problems };
}

export interface RowShare {
  name: string;
  /** Rows of the source with the labels that are asked for; cleaning may leave fewer. */
  available: number | null;
  rows: number | null;
}

/** Rows of each source as far as they can be told without reading any: before cleaning and duplicates. */
export function rowsBefore(
  recipe: Pick<Recipe, 'sources' | 'size' | 'whenShort'>,
  library: readonly Source[],
): { shares: RowShare[]; plan: DrawPlan | null } {
  const available = recipe.sources.map((one): number | null => {
    const source = library.find(({ name, id }) => name === one.source || id === one.source);
    if (!source) return null;
    if (!one.labels) return source.rows;
    return one.labels.reduce((sum, label) => sum + (source.labels[label] ?? 0), 0);
  });
  const inTokens =
    (recipe.size && 'tokens' in recipe.size) || recipe.sources.some(({ tokens }) => tokens !== undefined);
  if (inTokens || available.some((rows) => rows === null))
    return {
      shares: recipe.sources.map(({ name }, index) => ({ name, available: available[index]!, rows: null })),
      plan: null,
    };
  const plan = planDraw(
    recipe,
    available.map((rows) => ({ rows: rows ?? 0, tokens: null })),
  );
  return {
    shares: recipe.sources.map(({ name }, index) => ({
      name,
      available: available[index]!,
      rows: Math.min(
        plan.wanted[index]!.amount,
        recipe.sources[index]!.replacement ? Infinity : available[index]!,
      ),
    })),
    plan,
  };
}

export const stepWords: Record<CleanStep['step'], string> = {
  length: 'Length',
  tokens: 'Length in tokens',
  regex: 'Regular expression',
  sql: 'SQL condition',
  refusals: 'Refusals',
  boilerplate: 'Boilerplate',
  language: 'Language',
  roles: 'Mend the order of turns',
};
