import * as z from 'zod';
import { cleanStepSchema } from './cleaning.ts';
import { contaminationCountSchema, decontaminateSchema } from './decontamination.ts';
import { dedupSchema } from './dedup.ts';
import { columnMappingSchema, sourceFormats } from './source.ts';

/** One source of a mix: a name in the library, or a file (relative to recipe.yaml) that is imported on the way. */
export const recipeSourceSchema = z
  .object({
    name: z.string().min(1).describe('Name under which its rows are counted, in metrics too.'),
    source: z.string().optional().describe('A source in the library.'),
    path: z
      .union([z.string(), z.array(z.string()).min(1)])
      .optional()
      .describe('Files, relative to the recipe; hub:OWNER/NAME stands for those of a dataset of the hub.'),
    hub: z
      .string()
      .optional()
      .describe(
        'A dataset of the hub, downloaded on the way: OWNER/NAME, with @REVISION and :FILES as needed.',
      ),
    format: z.enum(sourceFormats).default('auto'),
    mapping: columnMappingSchema.optional(),
    labels: z
      .array(z.string())
      .optional()
      .describe('Keep only rows whose own label (`dataset` column) is one of these.'),
    filter: z
      .object({
        minAnswerChars: z.number().int().nonnegative().optional(),
        maxAnswerChars: z.number().int().positive().optional(),
        maxTurns: z.number().int().positive().optional(),
      })
      .strict()
      .optional(),
    clean: z
      .array(cleanStepSchema)
      .optional()
      .describe("Cleaning steps of this source alone, after the recipe's."),
    count: z.number().int().positive().optional().describe('Rows to draw; more than there are is an error.'),
    weight: z
      .number()
      .positive()
      .optional()
      .describe(
        "Share of the mix against the other sources' weights: the largest mix that needs no row twice.",
      ),
    fraction: z.number().positive().max(1).optional().describe("Share of this source's own rows."),
    tokens: z
      .number()
      .int()
      .positive()
      .optional()
      .describe('Tokens to draw, up to the row that would exceed them.'),
    replacement: z
      .boolean()
      .optional()
      .describe(
        'Where fewer rows are left than asked for, they come again: each once more before any comes a third time.',
      ),
    /** Draw by kinds of rows: `label` is the row's own (`type` of MetaMathQA, `lang` of Magicoder, `dataset`). */
    stratify: z
      .object({
        by: z.enum(['label', 'file']).default('label'),
        /** As many of each kind, or as they come. */
        how: z.enum(['equal', 'proportional']).default('proportional'),
        /** Shares of some kinds, against each other; others are left out. */
        shares: z.record(z.string(), z.number().positive()).optional(),
      })
      .strict()
      .optional(),
  })
  .strict()
  .refine((s) => [s.source, s.path, s.hub].filter((given) => given !== undefined).length === 1, {
    message: 'give one of `source` (a name in the library), `path` and `hub`',
  })
  .refine(
    ({ count, weight, fraction, tokens }) =>
      [count, weight, fraction, tokens].filter((given) => given !== undefined).length <= 1,
    { message: 'give one of `count`, `weight`, `fraction` and `tokens`' },
  )
  .refine((s) => s.format !== 'mapping' || s.mapping !== undefined, {
    message: 'format `mapping` needs `mapping: {prompt, answer}`',
    path: ['mapping'],
  });
export type RecipeSource = z.infer<typeof recipeSourceSchema>;

export const templates = ['camelidae', 'model'] as const;

/** recipe.yaml. Deterministic: the same recipe over the same bytes gives the same mix, byte for byte. */
export const recipeSchema = z
  .object({
    name: z.string().min(1).describe('What the mix is called in the library.'),
    sources: z.array(recipeSourceSchema).min(1).describe('What rows come from.'),
    seed: z
      .number()
      .int()
      .nonnegative()
      .max(0xffffffff)
      .default(0)
      .describe('Decides which rows are drawn and held out, and their order.'),
    clean: z.array(cleanStepSchema).optional().describe('Cleaning steps of every source, in order.'),
    dedup: dedupSchema
      .default('exact')
      .describe('Drop rows with the same words as an earlier one, or nearly the same.'),
    decontaminate: decontaminateSchema.optional().describe('Benchmarks that the mix must not hold.'),
    size: z
      .union([
        z.object({ rows: z.number().int().positive() }).strict(),
        z.object({ tokens: z.number().int().positive() }).strict(),
      ])
      .optional()
      .describe('How large the mix is: with it every source has a weight.'),
    whenShort: z
      .enum(['fail', 'scale', 'topUp'])
      .optional()
      .describe(
        'Where a source has less than it is asked for: fail, make the whole mix smaller, or take more of the others.',
      ),
    validation: z
      .object({
        perSource: z
          .number()
          .positive()
          .describe('Rows held out of each source: a count, or a share below 1.'),
      })
      .strict()
      .optional()
      .describe('Rows held out, on which a run measures its loss.'),
    model: z
      .string()
      .optional()
      .describe(
        'Tokenise for this model: a name in the library or a folder. Without it the mix holds text alone.',
      ),
    template: z
      .enum(templates)
      .default('camelidae')
      .describe("Camelidae's prompt, or the model's own chat template."),
    seqLen: z.number().int().min(8).default(2048).describe('Tokens of the longest row; longer ones are cut.'),
  })
  .strict();
export type Recipe = z.infer<typeof recipeSchema>;

/**
 * What a recipe asks for that cannot go together. A built mix's recipe names no model any more, so this is no part of the
 * schema.
 */
export function recipeProblems(recipe: Recipe): { field: string; message: string; mend: string }[] {
  const problems: { field: string; message: string; mend: string }[] = [];
  const { sources, size, model } = recipe;
  for (const [index, { name, weight }] of sources.entries()) {
    if (sources.findIndex((other) => other.name === name) < index)
      problems.push({
        field: `sources[${index}].name`,
        message: `two sources of the recipe are named '${name}'`,
        mend: 'Give each its own name: rows and losses are counted by it.',
      });
    if (size && weight === undefined)
      problems.push({
        field: `sources[${index}]`,
        message: `source '${name}' has no weight, but the recipe has a size`,
        mend: 'Give every source a weight, or leave out size and give counts.',
      });
  }
  if (model !== undefined) return problems;
  const counting = [
    ...(size && 'tokens' in size ? ['size.tokens'] : []),
    ...sources.flatMap(({ tokens }, index) => (tokens === undefined ? [] : [`sources[${index}].tokens`])),
    ...[...(recipe.clean ?? []).entries()].flatMap(([at, { step, off }]) =>
      step === 'tokens' && off !== true ? [`clean[${at}]`] : [],
    ),
    ...sources.flatMap(({ clean }, index) =>
      [...(clean ?? []).entries()].flatMap(([at, { step, off }]) =>
        step === 'tokens' && off !== true ? [`sources[${index}].clean[${at}]`] : [],
      ),
    ),
  ];
  for (const field of counting)
    problems.push({
      field,
      message: 'tokens are counted by a model, and the recipe names none',
      mend: 'Add model: NAME.',
    });
  return problems;
}

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
      /** Of `rows`, those that come again (`replacement`). */
      repeatedRows: z.number().int().optional(),
      validationRows: z.number().int(),
      tokens: z.number().int().nullable(),
      targetTokens: z.number().int().nullable(),
      rejectedByReason: z.record(z.string(), z.number().int()),
    }),
  ),
  model: z.string().nullable(),
  template: z.enum(templates).nullable(),
  seqLen: z.number().int().nullable(),
  /** What was found of the benchmarks that the recipe names. */
  contamination: z.array(contaminationCountSchema).optional(),
  /** SHA-256 over the mix's files. */
  contentHash: z.string(),
  recipe: recipeSchema,
  builtAt: z.number(),
  /** Set while it lies in the trash. */
  trashedAt: z.number().optional(),
});
export type Mix = z.infer<typeof mixSchema>;
