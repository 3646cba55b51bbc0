import * as z from 'zod';
import { contaminationCountSchema } from './decontamination.ts';
import { recipeSchema } from './recipe.ts';
import { rejectReasons } from './source.ts';

/** A rejected row of a mix or preview, with the step of the recipe that left it out. */
export const mixRejectSchema = z.object({
  /** Counts from 0 in the order of sources and rows; the next page begins after it. */
  reject: z.number().int(),
  source: z.string(),
  /** Null for rows that import set aside: they have no number. */
  sourceRow: z.number().int().nullable(),
  file: z.string(),
  line: z.number().int(),
  field: z.string().nullable(),
  reason: z.enum(rejectReasons),
  detail: z.string(),
  /** `clean[0]`, `sources[1].filter`, `dedup`, ...; null for what no line of the recipe asks for. */
  step: z.string().nullable(),
});
export type MixReject = z.infer<typeof mixRejectSchema>;

/** What one step of a recipe does to one source. */
export const stepCountSchema = z.object({
  /** As in {@link mixRejectSchema}. */
  step: z.string(),
  title: z.string(),
  reason: z.enum(rejectReasons),
  /** Rows that it leaves out of those that came so far. */
  rejected: z.number().int(),
  /** The first rows that it leaves out, with the beginning of what they say. */
  examples: z.array(
    z.object({
      sourceRow: z.number().int().nullable(),
      file: z.string(),
      line: z.number().int(),
      detail: z.string(),
      prompt: z.string(),
      answer: z.string(),
    }),
  ),
});
export type StepCount = z.infer<typeof stepCountSchema>;

/** Tokens of the rows that would train; null without a model. */
const tokenCountSchema = z.object({
  tokens: z.number(),
  targetTokens: z.number(),
  /** Rows that were tokenised for it: fewer than there are means an estimate. */
  measuredRows: z.number().int(),
  exact: z.boolean(),
  /** Measured rows that are cut at `seqLen`, and that have no trained token left. */
  cutRows: z.number().int(),
  emptyRows: z.number().int(),
});

/** What building a recipe would give: nothing is written, no source changes. */
export const mixPreviewSchema = z.object({
  id: z.string(),
  recipe: recipeSchema,
  sources: z.array(
    z.object({
      name: z.string(),
      rowsIn: z.number().int(),
      /** Rows that are left after all steps, before any is drawn. */
      available: z.number().int(),
      rows: z.number().int(),
      /** Of them, rows that come again (`replacement`). */
      repeatedRows: z.number().int(),
      validationRows: z.number().int(),
      steps: z.array(stepCountSchema),
      tokens: tokenCountSchema.nullable(),
    }),
  ),
  contamination: z.array(contaminationCountSchema),
  /** What would stop the build, with the field of the recipe and the mend. */
  problems: z.array(
    z.object({ field: z.string().nullable(), message: z.string(), mend: z.string().nullable() }),
  ),
});
export type MixPreview = z.infer<typeof mixPreviewSchema>;
