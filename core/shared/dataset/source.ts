import * as z from 'zod';
import { hubOriginSchema } from '../hub/hubReference.ts';

/** Formats of instruction data that import understands; `auto` guesses from columns and sample rows. */
export const sourceFormats = [
  'auto',
  'reference', // JSON array of {corpus, dataset, instruction, conversation: [{input, output}]}
  'messages', // {messages: [{role, content}]}
  'sharegpt', // {conversations: [{from, value, weight?}]} (SlimOrca)
  'alpaca', // {instruction, input?, output, system?, history?}
  'question-answer', // {question, answer} (GSM8K)
  'prompt-completion', // {prompt, completion}
  'instruction-response', // {instruction, response} (Magicoder Evol-Instruct)
  'problem-solution', // {lang, problem, solution} (Magicoder OSS-Instruct)
  'query-response', // {type, query, original_question, response} (MetaMathQA)
  'text', // {text}: raw corpus, every token is a target
  'mapping', // own columns, by `mapping`
] as const;
export type SourceFormat = (typeof sourceFormats)[number];

/** Names of the user's columns, for format `mapping`. */
export const columnMappingSchema = z
  .object({
    prompt: z.string(),
    answer: z.string(),
    system: z.string().optional(),
    /** What the row is counted under. */
    label: z.string().optional(),
    /** Rows of one value are never parted between training and validation. */
    group: z.string().optional(),
  })
  .strict();
export type ColumnMapping = z.infer<typeof columnMappingSchema>;

export const messageSchema = z.object({
  role: z.enum(['system', 'user', 'assistant']),
  content: z.string(),
  /** False: the answer is context, not a target (ShareGPT's weight 0). */
  train: z.boolean().optional(),
});
export type Message = z.infer<typeof messageSchema>;

/** Why a row was set aside. Every input row is kept or named with one of these. */
export const rejectReasons = [
  'malformed_json',
  'malformed_csv',
  'invalid_utf8',
  'row_too_long',
  'too_complex', // nested or counting more values than any conversation
  'damaged_file', // the file cannot be read on from here
  'bad_text', // characters that no text has: NUL, half of a surrogate pair
  'wrong_type',
  'missing_field',
  'empty_prompt',
  'empty_answer',
  'no_assistant_turn',
  'bad_role_order',
  'duplicate',
  'near_duplicate',
  'filtered',
  'refusal',
  'boilerplate',
  'language',
  'contaminated', // holds a benchmark's words
  'not_sampled',
  'held_out_group', // asks the same as a row held out for validation
  'prompt_too_long',
] as const;
export type RejectReason = (typeof rejectReasons)[number];

export const rejectedRowSchema = z.object({
  file: z.string(),
  /** Line in the file (JSONL, CSV) or number of the row (JSON array, Parquet), from 1. */
  line: z.number().int(),
  field: z.string().nullable(),
  reason: z.enum(rejectReasons),
  detail: z.string(),
});
export type RejectedRow = z.infer<typeof rejectedRowSchema>;

export const sourceSchema = z.object({
  id: z.string(),
  name: z.string(),
  /** Files as given at import. */
  files: z.array(z.string()),
  format: z.enum(sourceFormats),
  /** How sure the guess was and anything odd that was noticed (swapped labels, say). */
  notes: z.array(z.string()),
  rowsIn: z.number().int(),
  rows: z.number().int(),
  rejected: z.number().int(),
  rejectedByReason: z.record(z.string(), z.number().int()),
  /** Values of the file's own source column (`dataset`), with their row counts. */
  labels: z.record(z.string(), z.number().int()),
  bytes: z.number().int(),
  /** SHA-256 of the input files' bytes. */
  contentHash: z.string(),
  importedAt: z.number(),
  /** Own columns, where the format is `mapping`. */
  mapping: columnMappingSchema.optional(),
  /** Where its files were downloaded from. */
  hub: z.array(hubOriginSchema).optional(),
  /** Set while it lies in the trash. */
  trashedAt: z.number().optional(),
});
export type Source = z.infer<typeof sourceSchema>;

/** Where a row of a mix comes from. */
export const rowOriginSchema = z.object({
  sourceRow: z.number().int(),
  /** Name of the source's file, and the line as in {@link rejectedRowSchema}. */
  file: z.string(),
  line: z.number().int(),
  /** Of the conversation as imported. */
  hash: z.string(),
});
export type RowOrigin = z.infer<typeof rowOriginSchema>;

export const sourceRowSchema = z.object({
  row: z.number().int(),
  label: z.string(),
  line: z.number().int(),
  hash: z.string(),
  messages: z.array(messageSchema),
});
export type SourceRow = z.infer<typeof sourceRowSchema>;
