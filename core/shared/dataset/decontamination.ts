/** Benchmarks that a mix must not hold, and what was found of them. */
import * as z from 'zod';

/** Files of the paper's twelve benchmarks (and own ones by columns), as their publishers lay them out. */
export const benchmarkFormats = [
  'auto',
  'gsm8k', // question, answer
  'math', // problem, level, type, solution
  'humaneval', // task_id, prompt, canonical_solution, test, entry_point
  'mbpp', // task_id, text, code, test_list
  'mmlu', // question, subject, choices, answer; or the CSV without a header
  'hellaswag', // ctx_a, ctx_b, ctx, endings, label
  'piqa', // goal, sol1, sol2, label
  'winogrande', // sentence, option1, option2, answer
  'arc', // question, choices {text, label}, answerKey (Easy and Challenge)
  'naturalquestions', // question, answer [..]
  'triviaqa', // question, answer {value, aliases}
  'own', // by `columns`
] as const;
export type BenchmarkFormat = (typeof benchmarkFormats)[number];

export const benchmarkSplits = ['test', 'train'] as const;
export type BenchmarkSplit = (typeof benchmarkSplits)[number];

export const benchmarkSchema = z
  .object({
    name: z.string().min(1).optional().describe('By default the name of the format or file.'),
    path: z
      .union([z.string(), z.array(z.string()).min(1)])
      .describe('Files, relative to the recipe: JSONL, JSON, CSV or Parquet.'),
    format: z.enum(benchmarkFormats).default('auto'),
    split: z
      .enum(benchmarkSplits)
      .optional()
      .describe(
        'Rows that overlap with `train` are reported apart and kept. By default told from the name of the file.',
      ),
    columns: z
      .object({ prompt: z.string(), answer: z.string().optional() })
      .strict()
      .optional()
      .describe('Your own column names, for format: own.'),
  })
  .strict()
  .refine((benchmark) => benchmark.format !== 'own' || benchmark.columns !== undefined, {
    message: 'format `own` needs `columns: {prompt}`',
    path: ['columns'],
  });
export type Benchmark = z.infer<typeof benchmarkSchema>;

export const decontaminateSchema = z
  .object({
    benchmarks: z.array(benchmarkSchema).min(1),
    ngram: z.number().int().min(3).max(50).default(13).describe('Words in a row that count as a match.'),
    floor: z
      .number()
      .int()
      .min(3)
      .max(50)
      .default(8)
      .describe(
        'Shorter items match as a whole, down to so many words; below that only where they are equal.',
      ),
    minCoverage: z
      .number()
      .min(0)
      .max(1)
      .default(0)
      .describe("Share of an item's words that must be covered; 0 takes any run of `ngram` words."),
    parts: z
      .array(z.enum(['prompt', 'answer']))
      .min(1)
      .default(['prompt', 'answer'])
      .describe('What of the benchmark must not be found.'),
    onTrain: z.enum(['keep', 'drop']).default('keep').describe('What to do with overlap with a train split.'),
  })
  .strict()
  .refine(({ ngram, floor }) => floor <= ngram, {
    message: '`floor` is above `ngram`',
    path: ['floor'],
  });
export type Decontaminate = z.infer<typeof decontaminateSchema>;

/** What a benchmark file turned out to be. */
export const benchmarkSummarySchema = z.object({
  name: z.string(),
  format: z.enum(benchmarkFormats),
  split: z.enum(benchmarkSplits),
  items: z.number().int(),
  /** Items of which neither prompt nor answer reaches the floor: found only where they are equal. */
  shortItems: z.number().int(),
  /** Lines of the files that could not be read as this format. */
  skipped: z.number().int(),
  contentHash: z.string(),
});
export type BenchmarkSummary = z.infer<typeof benchmarkSummarySchema>;

export const benchmarkInspectionSchema = benchmarkSummarySchema.extend({
  /** The first items, as they will be sought. */
  sample: z.array(
    z.object({
      file: z.string(),
      line: z.number().int(),
      split: z.enum(benchmarkSplits),
      prompts: z.array(z.string()),
      answers: z.array(z.string()),
    }),
  ),
});
export type BenchmarkInspection = z.infer<typeof benchmarkInspectionSchema>;

/** [from, to) in UTF-16 units. */
const spans = z.array(z.tuple([z.number().int(), z.number().int()]));

/** One row of a source beside the item of a benchmark that it repeats. */
export const contaminationMatchSchema = z.object({
  match: z.number().int(),
  source: z.string(),
  sourceRow: z.number().int(),
  file: z.string(),
  line: z.number().int(),
  benchmark: z.string(),
  split: z.enum(benchmarkSplits),
  item: z.number().int(),
  itemFile: z.string(),
  itemLine: z.number().int(),
  /** Whose words: the row's, and the item's. */
  rowPart: z.enum(['prompt', 'answer']),
  itemPart: z.enum(['prompt', 'answer']),
  kind: z.enum(['exact', 'ngram']),
  /** Words of the longest run in common. */
  words: z.number().int(),
  /** Share of the item's words that lie in runs in common. */
  coverage: z.number(),
  /** Whether the row was left out for it. */
  dropped: z.boolean(),
  rowText: z.string(),
  rowSpans: spans,
  itemText: z.string(),
  itemSpans: spans,
});
export type ContaminationMatch = z.infer<typeof contaminationMatchSchema>;

export const contaminationCountSchema = benchmarkSummarySchema.extend({
  /** Items found in at least one row, and rows that hold at least one. */
  itemsFound: z.number().int(),
  rows: z.number().int(),
});
export type ContaminationCount = z.infer<typeof contaminationCountSchema>;
