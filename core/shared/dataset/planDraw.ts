/** How many rows or tokens each source of a recipe gives, from what it asks for and from what is left to draw. */
import type { Recipe, RecipeSource } from './recipe.ts';

export interface Available {
  rows: number;
  /** Null without a model. */
  tokens: number | null;
}

export interface Wanted {
  unit: 'rows' | 'tokens';
  amount: number;
}

/** A source that cannot give what it is asked for. */
export interface Shortage {
  index: number;
  unit: 'rows' | 'tokens';
  asked: number;
  available: number;
  /** What the whole mix would be under `whenShort: scale`, as a share of what is asked. */
  scale: number;
}

export interface DrawPlan {
  wanted: Wanted[];
  /** In the order of sources; with `whenShort: scale` or `topUp`, what was made up for. */
  short: Shortage[];
  /** What `topUp` could not make up, for the other sources had no more. */
  missing: number;
}

export function planDraw(
  recipe: Pick<Recipe, 'sources' | 'size' | 'whenShort'>,
  available: readonly Available[],
): DrawPlan {
  const { sources, whenShort = 'fail' } = recipe;
  const has = (index: number, unit: 'rows' | 'tokens') => available[index]![unit] ?? 0;
  const asked = askedOf(recipe, available);
  const short = asked.flatMap(({ unit, amount, fixed }, index): Shortage[] => {
    if (!fixed || sources[index]!.replacement || amount <= has(index, unit)) return [];
    return [{ index, unit, asked: amount, available: has(index, unit), scale: has(index, unit) / amount }];
  });
  const wanted = asked.map(({ unit, amount }): Wanted => ({ unit, amount }));
  if (short.length === 0 || whenShort === 'fail') return { wanted, short, missing: 0 };
  if (whenShort === 'scale') {
    const scale = Math.min(...short.map((one) => one.scale));
    for (const [index, one] of asked.entries())
      if (one.fixed) wanted[index]!.amount = Math.floor(one.amount * scale + 1e-9);
    return { wanted, short, missing: 0 };
  }
  let missing = 0;
  for (const unit of ['rows', 'tokens'] as const) {
    let lacking = 0;
    for (const one of short)
      if (one.unit === unit) {
        wanted[one.index]!.amount = one.available;
        lacking += one.asked - one.available;
      }
    if (lacking === 0) continue;
    const spare = asked.map((one, index) =>
      one.unit !== unit || !one.fixed || short.some((other) => other.index === index)
        ? 0
        : sources[index]!.replacement
          ? Infinity
          : has(index, unit) - one.amount,
    );
    const more = share(
      lacking,
      asked.map(({ amount }, index) => (spare[index]! > 0 ? amount : 0)),
      spare,
    );
    for (const [index, extra] of more.entries()) wanted[index]!.amount += extra;
    missing += lacking - more.reduce((sum, extra) => sum + extra, 0);
  }
  return { wanted, short, missing };
}

interface Asked extends Wanted {
  /** A number that the recipe names; else what there is. */
  fixed: boolean;
}

function askedOf(
  { sources, size }: Pick<Recipe, 'sources' | 'size'>,
  available: readonly Available[],
): Asked[] {
  if (size) {
    const unit = 'rows' in size ? 'rows' : 'tokens';
    const total = 'rows' in size ? size.rows : size.tokens;
    const amounts = share(
      total,
      sources.map(({ weight }) => weight ?? 0),
      sources.map(() => Infinity),
    );
    return amounts.map((amount) => ({ unit, amount, fixed: true }));
  }
  const scale = Math.min(
    ...sources.map(({ weight }, index) =>
      weight === undefined ? Infinity : available[index]!.rows / weight,
    ),
  );
  return sources.map((source, index) => asksFor(source, available[index]!, scale));
}

function asksFor(
  { count, weight, fraction, tokens }: RecipeSource,
  { rows }: Available,
  scale: number,
): Asked {
  if (count !== undefined) return { unit: 'rows', amount: count, fixed: true };
  if (tokens !== undefined) return { unit: 'tokens', amount: tokens, fixed: true };
  if (fraction !== undefined)
    return { unit: 'rows', amount: Math.max(1, Math.round(fraction * rows)), fixed: false };
  return {
    unit: 'rows',
    amount: weight === undefined ? rows : Math.floor(weight * scale + 1e-9),
    fixed: false,
  };
}

/**
 * Cuts `total` into whole parts by weight, none above its cap; what a cap leaves over goes to the others. Remainders go to
 * the largest fractions, the first of equals.
 */
export function share(total: number, weights: readonly number[], caps: readonly number[]): number[] {
  const parts = weights.map(() => 0);
  let open = weights.flatMap((weight, index) => (weight > 0 && caps[index]! > 0 ? [index] : []));
  let left = total;
  for (;;) {
    const sum = open.reduce((all, index) => all + weights[index]!, 0);
    const full = open.filter((index) => (left * weights[index]!) / sum >= caps[index]!);
    if (full.length === 0) break;
    for (const index of full) {
      parts[index] = Math.floor(caps[index]!);
      left -= parts[index]!;
    }
    open = open.filter((index) => !full.includes(index));
  }
  const sum = open.reduce((all, index) => all + weights[index]!, 0);
  const exact = open.map((index) => ({ index, value: (left * weights[index]!) / sum }));
  for (const { index, value } of exact) parts[index] = Math.floor(value);
  let rest = open.length === 0 ? 0 : left - exact.reduce((all, { value }) => all + Math.floor(value), 0);
  exact.sort((a, b) => b.value - Math.floor(b.value) - (a.value - Math.floor(a.value)) || a.index - b.index);
  for (const { index } of exact) {
    if (rest < 1) break;
    parts[index]!++;
    rest--;
  }
  return parts;
}
