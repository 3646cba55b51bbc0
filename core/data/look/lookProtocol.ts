/** What a host asks of the data process to look at rows. */
import * as z from 'zod';
import {
  importPreviewSchema,
  lookQuerySchema,
  lookStatisticsSchema,
  lookWindowSchema,
  previewRequestSchema,
  rawRowSchema,
  renderedRowSchema,
} from '../../shared/dataset/look.ts';
import { templates } from '../../shared/dataset/recipe.ts';
import { columnMappingSchema, messageSchema, sourceFormats } from '../../shared/dataset/source.ts';

const kind = z.enum(['source', 'mix']);

/** The files that a look at one dataset needs. */
export const lookFilesSchema = z.object({
  kind,
  /** rows.parquet or mix.parquet. */
  rows: z.string(),
  rejects: z.string(),
  /** What prepareLook wrote. */
  index: z.string(),
  /** What measureRows wrote, where rows were measured. */
  measures: z.string().nullable(),
});
export type LookFiles = z.infer<typeof lookFilesSchema>;

const tokenizerSchema = z.object({
  path: z.string(),
  tokens: z.object({
    bos: z.string().nullable(),
    eos: z.string().nullable(),
    specials: z.array(z.string()),
    chatTemplate: z.string().nullable(),
  }),
});
const yardstick = { tokenizer: tokenizerSchema, template: z.enum(templates), seqLen: z.number() };

export const lookRequests = {
  /** Writes the index that windows, filters and statistics are read from. */
  prepareLook: {
    params: lookFilesSchema.omit({ index: true, measures: true }).extend({ out: z.string() }),
    result: z.object({ rows: z.number(), rejects: z.number() }),
  },
  /** How many rows a query finds. Searching reads all text: progress is told, and it can be cancelled. */
  countLook: {
    params: z.object({ files: lookFilesSchema, query: lookQuerySchema }),
    result: z.object({ total: z.number() }),
  },
  readLook: {
    params: z.object({
      files: lookFilesSchema,
      query: lookQuerySchema,
      from: z.number(),
      count: z.number(),
    }),
    result: lookWindowSchema,
  },
  /** Where a row stands in what a query finds. */
  findLook: {
    params: z.object({ files: lookFilesSchema, query: lookQuerySchema, key: z.number() }),
    result: z.object({ position: z.number().nullable() }),
  },
  describeLook: { params: z.object({ files: lookFilesSchema }), result: lookStatisticsSchema },
  /** Lets go of an index, so that its file can be removed. */
  closeLook: { params: z.object({ index: z.string() }), result: z.object({}) },
  /** Tokenises every row; writes its counts and what becomes of it. */
  measureRows: {
    params: z.object({ rows: z.string(), out: z.string(), threads: z.number(), ...yardstick }),
    result: z.object({ rows: z.number() }),
  },
  readRow: {
    params: z.object({ files: lookFilesSchema, key: z.number() }),
    result: z.object({
      row: lookWindowSchema.shape.rows.element,
      hash: z.string(),
      messages: z.array(messageSchema),
      /** The earlier row with the same words. */
      duplicateOf: z.number().nullable(),
    }),
  },
  renderRow: {
    params: z.object({ messages: z.array(messageSchema), ...yardstick }),
    result: renderedRowSchema,
  },
  readRawRow: {
    params: z.object({
      file: z.string(),
      line: z.number(),
      format: z.enum(sourceFormats),
      mapping: columnMappingSchema.optional(),
      messages: z.array(messageSchema),
    }),
    result: rawRowSchema,
  },
  previewImport: { params: previewRequestSchema, result: importPreviewSchema },
} as const;
