/** Looking at sources and mixes: what can be asked of their rows, and what is told. */
import * as z from 'zod';
import { templates } from './recipe.ts';
import { columnMappingSchema, messageSchema, rejectReasons, sourceFormats } from './source.ts';

export const datasetRefSchema = z.object({ kind: z.enum(['source', 'mix']), id: z.string() }).strict();
export type DatasetRef = z.infer<typeof datasetRefSchema>;

/** `rows`: what was kept; `rejects`: what was set aside, each with its reason. */
export const lookTables = ['rows', 'rejects'] as const;
export type LookTable = (typeof lookTables)[number];

/** Columns of the rows that hold numbers. */
export const numberColumns = [
  'key',
  'line',
  'turns',
  'promptChars',
  'answerChars',
  'tokens',
  'targetTokens',
] as const;
/** Columns that hold one of a few values. */
export const textColumns = ['source', 'label', 'split', 'file', 'fate', 'reason', 'field'] as const;
export const flagColumns = ['duplicate', 'system'] as const;
export type NumberColumn = (typeof numberColumns)[number];
export type TextColumn = (typeof textColumns)[number];
export type FlagColumn = (typeof flagColumns)[number];

/** What becomes of a row under a model's tokenizer, a template and a length. */
export const fates = [
  'whole', // every token fits
  'cut', // too long: its end is not trained
  'untrained', // no token to learn from is left
] as const;
export type Fate = (typeof fates)[number];

export const lookFilterSchema = z.discriminatedUnion('kind', [
  z
    .object({
      kind: z.literal('range'),
      column: z.enum(numberColumns),
      min: z.number().optional(),
      max: z.number().optional(),
    })
    .strict(),
  z
    .object({
      kind: z.literal('oneOf'),
      column: z.enum(textColumns),
      values: z.array(z.string().max(1000)).min(1).max(200),
    })
    .strict(),
  z.object({ kind: z.literal('flag'), column: z.enum(flagColumns), value: z.boolean() }).strict(),
]);
export type LookFilter = z.infer<typeof lookFilterSchema>;

export const sortColumns = [...numberColumns, ...textColumns, ...flagColumns] as const;
export type SortColumn = (typeof sortColumns)[number];

export const lookQuerySchema = z
  .object({
    table: z.enum(lookTables).default('rows'),
    /** Words that a row must hold, in any case; "a phrase" in quotes; -word: rows without it. */
    search: z.string().max(1000).default(''),
    filters: z.array(lookFilterSchema).max(20).default([]),
    /** Null: in the order of the file. */
    sort: z
      .object({ column: z.enum(sortColumns), descending: z.boolean().default(false) })
      .strict()
      .nullable()
      .default(null),
  })
  .strict();
export type LookQuery = z.infer<typeof lookQuerySchema>;

/** A tokenizer, a template and a length: what rows are measured with. */
export const yardstickSchema = z
  .object({
    model: z.string(),
    template: z.enum(templates).default('camelidae'),
    seqLen: z.number().int().min(8).max(1_048_576).default(2048),
  })
  .strict();
export type Yardstick = z.infer<typeof yardstickSchema>;

export const lookRowSchema = z.object({
  /** The row's number in this dataset; of a mix, rows held out for validation come after all others. */
  key: z.number().int(),
  split: z.enum(['train', 'validation']).nullable(),
  /** The row's number within its split, which steps of a run name. */
  row: z.number().int(),
  /** Of a mix: the source under its name in the recipe, and the row's number there. */
  source: z.string().nullable(),
  sourceRow: z.number().int().nullable(),
  label: z.string(),
  file: z.string(),
  line: z.number().int(),
  turns: z.number().int(),
  system: z.boolean(),
  promptChars: z.number().int(),
  answerChars: z.number().int(),
  /** The same words as an earlier row. */
  duplicate: z.boolean(),
  /** Null where nothing was measured. */
  tokens: z.number().int().nullable(),
  targetTokens: z.number().int().nullable(),
  fate: z.enum(fates).nullable(),
  /** Beginnings of the last question and answer. */
  prompt: z.string(),
  answer: z.string(),
  /** Where words were searched: the text around the first of them. */
  found: z.string().nullable(),
});
export type LookRow = z.infer<typeof lookRowSchema>;

export const lookRejectSchema = z.object({
  key: z.number().int(),
  source: z.string().nullable(),
  sourceRow: z.number().int().nullable(),
  file: z.string(),
  line: z.number().int(),
  field: z.string().nullable(),
  reason: z.enum(rejectReasons),
  detail: z.string(),
});
export type LookReject = z.infer<typeof lookRejectSchema>;

export const lookWindowSchema = z.object({
  /** Rows that the query finds. */
  total: z.number().int(),
  rows: z.array(lookRowSchema),
  rejects: z.array(lookRejectSchema),
});
export type LookWindow = z.infer<typeof lookWindowSchema>;

/** Counts by steps of a quarter of an octave: value v falls into bin floor(4 log2(1 + v)). */
export const binsPerOctave = 4;
export function binStart(bin: number): number {
  return Math.max(0, Math.ceil(2 ** (bin / binsPerOctave) - 1));
}

const spreadSchema = z.object({
  min: z.number(),
  q10: z.number(),
  median: z.number(),
  q90: z.number(),
  max: z.number(),
  mean: z.number(),
  sum: z.number(),
  bins: z.array(z.object({ bin: z.number().int(), rows: z.number().int() })),
});
export type Spread = z.infer<typeof spreadSchema>;

/** Of one source of a mix, or one label of a source. */
export const groupStatisticsSchema = z.object({
  name: z.string(),
  rows: z.number().int(),
  duplicates: z.number().int(),
  withSystem: z.number().int(),
  turns: spreadSchema,
  promptChars: spreadSchema,
  answerChars: spreadSchema,
  tokens: spreadSchema.nullable(),
  targetTokens: spreadSchema.nullable(),
  /** Rows by what becomes of them; null where nothing was measured. */
  fates: z.record(z.enum(fates), z.number().int()).nullable(),
  /** Rows set aside, by reason; null where they cannot be told by this group. */
  rejectedByReason: z.record(z.string(), z.number().int()).nullable(),
});
export type GroupStatistics = z.infer<typeof groupStatisticsSchema>;

export const lookStatisticsSchema = z.object({
  /** All rows, then groups by size; what is beyond the largest is in the last, "other". */
  all: groupStatisticsSchema,
  groupedBy: z.enum(['source', 'label']),
  groups: z.array(groupStatisticsSchema),
  values: z.array(
    z.object({
      column: z.enum(textColumns),
      distinct: z.number().int(),
      top: z.array(z.object({ value: z.string(), rows: z.number().int() })),
    }),
  ),
});
export type LookStatistics = z.infer<typeof lookStatisticsSchema>;

export const tokenSchema = z.object({
  /** More than one where only together they are text. */
  ids: z.array(z.number().int()),
  text: z.string(),
  special: z.boolean(),
  state: z.enum(['trained', 'masked', 'cut']),
});

/** What a model would see of one row. */
export const renderedRowSchema = z.object({
  pieces: z.array(z.object({ text: z.string(), target: z.boolean(), special: z.boolean() })),
  tokens: z.array(tokenSchema),
  counts: z.object({
    tokens: z.number().int(),
    trained: z.number().int(),
    masked: z.number().int(),
    cut: z.number().int(),
  }),
  fate: z.enum(fates),
  /** Tokens beyond those listed. */
  unlisted: z.number().int(),
});
export type RenderedRow = z.infer<typeof renderedRowSchema>;

export const rawRowSchema = z.object({
  /** The line or value as it stands in the file, cut if it is very long; null where it cannot be read. */
  text: z.string().nullable(),
  /** The file says the same as when it was imported. */
  unchanged: z.boolean().nullable(),
  problem: z.string().nullable(),
});
export type RawRowText = z.infer<typeof rawRowSchema>;

export const importPreviewSchema = z.object({
  files: z.array(z.object({ path: z.string(), bytes: z.number(), kind: z.string() })),
  /** What the files look like; null where no known format fits. */
  guess: z.enum(sourceFormats).nullable(),
  /** The format that the rows below were read in. */
  format: z.enum(sourceFormats).nullable(),
  notes: z.array(z.string()),
  columns: z.array(z.string()),
  rows: z.array(
    z.object({
      file: z.string(),
      line: z.number().int(),
      /** As it stands in the file, cut if it is long. */
      raw: z.string(),
      label: z.string(),
      messages: z.array(messageSchema).nullable(),
      problem: z
        .object({ reason: z.enum(rejectReasons), field: z.string().nullable(), detail: z.string() })
        .nullable(),
    }),
  ),
});
export type ImportPreview = z.infer<typeof importPreviewSchema>;

export const previewRequestSchema = z
  .object({
    files: z.array(z.string()).min(1).max(1000),
    format: z.enum(sourceFormats).default('auto'),
    mapping: columnMappingSchema.optional(),
  })
  .strict();
