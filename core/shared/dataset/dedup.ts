import * as z from 'zod';

/** Settings of published tools, so that their results can be compared: of their texts, only the bands are alike. */
export const nearDuplicatePresets = {
  /** 24 bands of 10. */
  'text-dedup': { ngram: 5, permutations: 240, threshold: 0.7 },
  /** 25 bands of 10. */
  bigcode: { ngram: 5, permutations: 256, threshold: 0.7 },
  /** (1 / 14)^(1 / 8) = 0.719 is where its bands are steepest. */
  datatrove: { ngram: 5, permutations: 112, bands: 14, threshold: 0.72 },
} as const satisfies Record<string, NearDuplicateSettings>;

export interface NearDuplicateSettings {
  ngram: number;
  permutations: number;
  bands?: number;
  threshold: number;
}

const nearDedupSchema = z
  .object({
    method: z.literal('near'),
    /** What the fields that are left out come from. */
    preset: z.enum(Object.keys(nearDuplicatePresets) as [keyof typeof nearDuplicatePresets]).optional(),
    /** Words of a shingle. */
    ngram: z.number().int().min(1).max(100).optional(),
    permutations: z.number().int().min(1).max(1024).optional(),
    /** Of floor(permutations / bands) minima each; by default the number that errs least at the threshold. */
    bands: z.number().int().min(1).max(1024).optional(),
    /** Jaccard similarity from which two rows are near-duplicates. */
    threshold: z.number().positive().max(1).optional(),
  })
  .strict();

/**
 * `exact`: of rows with the same words and roles, the first in the order of sources and rows stays. `near`: after that,
 * so does the first of each cluster of near-duplicates.
 */
export const dedupSchema = z.union([z.enum(['none', 'exact', 'near']), nearDedupSchema]).refine(
  (dedup) => {
    const near = nearDuplicateSettings(dedup);
    return near?.bands === undefined || near.bands <= near.permutations;
  },
  { message: 'there are more bands than permutations', path: ['bands'] },
);
export type Dedup = z.infer<typeof dedupSchema>;

/** The whole settings of a search for near-duplicates; null where none is asked for. */
export function nearDuplicateSettings(dedup: Dedup): NearDuplicateSettings | null {
  if (dedup === 'none' || dedup === 'exact') return null;
  if (dedup === 'near') return nearDuplicatePresets['text-dedup'];
  const { method: _near, preset = 'text-dedup', ...given } = dedup;
  const { bands, ...rest }: NearDuplicateSettings = nearDuplicatePresets[preset];
  // Other permutations or another threshold want other bands than the preset's.
  const kept = given.permutations === undefined && given.threshold === undefined && bands !== undefined;
  return { ...rest, ...(kept && { bands }), ...withoutUndefined(given) };
}

function withoutUndefined<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as never;
}
