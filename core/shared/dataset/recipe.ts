import * as z from 'zod';
import { dedupSchema } from './dedup.ts';
import { columnMappingSchema, sourceFormats } from './source.ts';

/** One source of a mix: a name in the library, or a file (relative to recipe.yaml) that is imported on the way. */
export const recipeSourceSchema = z
  .object({
    /** Name under which its rows are counted, in metrics too. */
    name: z.string().min(1),
    /** A source in the library. */
    source: z.string().optional(),
    /** Files, relative to the recipe. */
    path: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
    format: z.enum(sourceFormats).default('auto'),
    mapping: columnMappingSchema.optional(),
    /** Keep only rows whose own label (`dataset` column) is one of these. */
    labels: z.array(z.string()).optional(),
    filter: z
      .object({
        minAnswerChars: z.number().int().nonnegative().optional(),
        maxAnswerChars: z.number().int().positive().optional(),
        maxTurns: z.number().int().positive().optional(),
      })
      .strict()
      .optional(),
    /** Rows to draw; more than there are is an error. */
    count: z.number().int().positive().optional(),
    /** Share of the mix against the other sources' weights: the largest mix that needs no row twice. */
    weight: z.number().positive().optional(),
  })
  .strict()
  .refine((s) => (s.source === undefined) !== (s.path === undefined), {
    message: 'give either `source` (a name in the library) or `path`',
  })
  .refine((s) => s.count === undefined || s.weight === undefined, {
    message: 'give `count` or `weight`, not both',
  })
  .refine((s) => s.format !== 'mapping' || s.mapping !== undefined, {
    message: 'format `mapping` needs `mapping: {prompt, answer}`',
    path: ['mapping'],
  });
export type RecipeSource = z.infer<typeof recipeSourceSchema>;

export const templates = ['camelidae', 'model'] as const;

/** recipe.yaml. Deterministic: the same recipe over the same bytes gives the same mix, byte for byte. */
export const recipeSchema = z
  .object({
    name: z.string().min(1),
    sources: z.array(recipeSourceSchema).min(1),
    seed: z.number().int().nonnegative().max(0xffffffff).default(0),
    dedup: dedupSchema.default('exact'),
    validation: z
      .object({
        /** Rows held out of each source: a count, or a share below 1. */
        perSource: z.number().positive(),
      })
      .strict()
      .optional(),
    /** Tokenise for this model (library name, folder); without it the mix holds text alone. */
    model: z.string().optional(),
    template: z.enum(templates).default('camelidae'),
    seqLen: z.number().int().min(8).default(2048),
  })
  .strict();
export type Recipe = z.infer<typeof recipeSchema>;

export const mixSchema = z.object({
  id: z.string(),
  name: z.string(),
  dir: z.string(),
  rows: z.number().int(),
  validationRows: z.number().int(),
  tokens: z.number().int().nullable(),
  targetTokens: z.number().int().nullable(),
  sources: z.array(
    z.object({
      name: z.string(),
      rowsIn: z.number().int(),
      rows: z.number().int(),
      validationRows: z.number().int(),
      tokens: z.number().int().nullable(),
      targetTokens: z.number().int().nullable(),
      rejectedByReason: z.record(z.string(), z.number().int()),
    }),
  ),
  model: z.string().nullable(),
  template: z.enum(templates).nullable(),
  seqLen: z.number().int().nullable(),
  /** SHA-256 over the mix's files. */
  contentHash: z.string(),
  recipe: recipeSchema,
  builtAt: z.number(),
  /** Set while it lies in the trash. */
  trashedAt: z.number().optional(),
});
export type Mix = z.infer<typeof mixSchema>;
