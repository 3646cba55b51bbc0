/** The protocol between a host and its data process. Both ends parse what they receive. */
import * as z from 'zod';
import type { Addon } from '../engine/AddonTypes.ts';
import { answerMessageSchemas, requestMessageSchema } from '../process/requestMessages.ts';
import { spelledTokenSchema } from '../shared/chat/chat.ts';
import {
  benchmarkInspectionSchema,
  benchmarkSchema,
  benchmarkSplits,
  contaminationCountSchema,
  contaminationMatchSchema,
} from '../shared/dataset/decontamination.ts';
import { mixComparisonSchema, mixExportFormats, mixExportSchema } from '../shared/dataset/mixExport.ts';
import { mixPreviewSchema, mixRejectSchema } from '../shared/dataset/preview.ts';
import { mixSchema, recipeSchema, templates } from '../shared/dataset/recipe.ts';
import {
  columnMappingSchema,
  messageSchema,
  rejectReasons,
  rowOriginSchema,
  sourceFormats,
} from '../shared/dataset/source.ts';
import { modelCheckSchema, modelSummarySchema, tokenizerFactsSchema } from '../shared/model/model.ts';
import { lookRequests } from './look/lookProtocol.ts';

/** What a request tells while it works. */
export type Report = (progress: DataProgress) => void;

/** Loads the addon at first use: imports need none. */
export type AddonLoader = () => Addon;

const counts = z.record(z.string(), z.number());
const page = { after: z.number(), limit: z.number() };

const templateTokensSchema = z.object({
  bos: z.string().nullable(),
  eos: z.string().nullable(),
  specials: z.array(z.string()),
  chatTemplate: z.string().nullable(),
});

const mixRequestSchema = z.object({
  recipe: recipeSchema,
  sources: z.array(z.object({ dir: z.string(), contentHash: z.string() })),
  benchmarks: z.array(z.array(z.string())),
  tokenizer: z
    .object({ path: z.string(), hash: z.string(), modelName: z.string(), tokens: templateTokensSchema })
    .nullable(),
  outDir: z.string(),
  memoryLimit: z.string(),
  threads: z.number(),
});

export const requests = {
  importSource: {
    params: z.object({
      files: z.array(z.string()),
      format: z.enum(sourceFormats),
      mapping: columnMappingSchema.optional(),
      outDir: z.string(),
      memoryLimit: z.string(),
    }),
    result: z.object({
      format: z.enum(sourceFormats),
      notes: z.array(z.string()),
      rowsIn: z.number(),
      rows: z.number(),
      rejected: z.number(),
      rejectedByReason: counts,
      labels: counts,
      bytes: z.number(),
      contentHash: z.string(),
    }),
  },
  readSourceRows: {
    params: z.object({ dir: z.string(), ...page }),
    result: z.array(
      z.object({
        row: z.number(),
        label: z.string(),
        line: z.number(),
        hash: z.string(),
        messages: z.array(messageSchema),
      }),
    ),
  },
  readRejects: {
    params: z.object({ dir: z.string(), ...page }),
    result: z.array(
      z.object({
        file: z.string(),
        line: z.number(),
        field: z.string().nullable(),
        reason: z.enum(rejectReasons),
        detail: z.string(),
      }),
    ),
  },
  previewMix: { params: mixRequestSchema, result: mixPreviewSchema.omit({ id: true }) },
  buildMix: {
    params: mixRequestSchema,
    result: z.object({
      rows: z.number(),
      validationRows: z.number(),
      tokens: z.number().nullable(),
      targetTokens: z.number().nullable(),
      sources: z.array(
        z.object({
          name: z.string(),
          rowsIn: z.number(),
          rows: z.number(),
          repeatedRows: z.number().optional(),
          validationRows: z.number(),
          tokens: z.number().nullable(),
          targetTokens: z.number().nullable(),
          rejectedByReason: counts,
        }),
      ),
      contamination: z.array(contaminationCountSchema).optional(),
      contentHash: z.string(),
    }),
  },
  /** Of the folder of a mix or preview. */
  readMixRejects: {
    params: z.object({
      dir: z.string(),
      ...page,
      source: z.string().optional(),
      reason: z.enum(rejectReasons).optional(),
      step: z.string().optional(),
    }),
    result: z.array(mixRejectSchema),
  },
  readContamination: {
    params: z.object({
      dir: z.string(),
      ...page,
      benchmark: z.string().optional(),
      split: z.enum(benchmarkSplits).optional(),
    }),
    result: z.array(contaminationMatchSchema),
  },
  inspectBenchmark: {
    params: z.object({ benchmark: benchmarkSchema, files: z.array(z.string()) }),
    result: benchmarkInspectionSchema,
  },
  readMixRows: {
    params: z.object({ dir: z.string(), split: z.enum(['train', 'validation']), ...page }),
    result: z.array(
      z.object({
        row: z.number(),
        source: z.string(),
        label: z.string(),
        line: z.number(),
        hash: z.string(),
        messages: z.array(messageSchema),
        tokens: z.number().nullable(),
      }),
    ),
  },
  exportMix: {
    params: z.object({
      mix: mixSchema.omit({ id: true, builtAt: true }),
      format: z.enum(mixExportFormats),
      outDir: z.string(),
    }),
    result: mixExportSchema,
  },
  compareMixes: {
    params: z.object({ from: z.string(), to: z.string() }),
    result: mixComparisonSchema.pick({ sources: true, added: true, removed: true }),
  },
  /** Rows of a mix by their numbers, in the order asked. */
  readMixRowsAt: {
    params: z.object({ dir: z.string(), split: z.enum(['train', 'validation']), rows: z.array(z.number()) }),
    result: z.array(
      z.object({
        row: z.number(),
        source: z.string(),
        messages: z.array(messageSchema),
        tokens: z.number().nullable(),
        ...rowOriginSchema.shape,
      }),
    ),
  },
  tokenize: {
    params: z.object({ tokenizerPath: z.string(), texts: z.array(z.string()), threads: z.number() }),
    result: z.object({ ids: z.array(z.array(z.number())) }),
  },
  readTokenizer: {
    params: z.object({ dir: z.string() }),
    result: z.object({ tokens: templateTokensSchema, stopIds: z.array(z.number()) }),
  },
  /** `path`: tokenizer.json or a GGUF file. */
  describeTokenizer: {
    params: z.object({ path: z.string(), tokens: templateTokensSchema, stopIds: z.array(z.number()) }),
    result: tokenizerFactsSchema,
  },
  spellText: {
    params: z.object({ path: z.string(), text: z.string() }),
    result: z.object({
      tokens: z.array(
        z.object({
          text: z.string(),
          ids: z.array(z.number()),
          pieces: z.array(z.string()),
          special: z.boolean(),
        }),
      ),
      count: z.number(),
    }),
  },
  renderConversation: {
    params: z.object({
      path: z.string(),
      messages: z.array(messageSchema),
      template: z.enum(templates),
      tokens: templateTokensSchema,
    }),
    result: z.array(spelledTokenSchema),
  },
  checkTokenizer: {
    params: z.object({
      path: z.string(),
      tokens: templateTokensSchema,
      stopIds: z.array(z.number()),
      template: z.enum(templates),
    }),
    result: z.array(modelCheckSchema),
  },
  inspectModel: { params: z.object({ dir: z.string() }), result: modelSummarySchema },
  hashModel: { params: z.object({ dir: z.string() }), result: z.object({ identity: z.string() }) },
  hashFile: { params: z.object({ path: z.string() }), result: z.object({ hash: z.string() }) },
  ...lookRequests,
} as const;

export type Requests = typeof requests;
export type RequestName = keyof Requests;
export type RequestParams<N extends RequestName> = z.infer<Requests[N]['params']>;
export type RequestResult<N extends RequestName> = z.infer<Requests[N]['result']>;

export const progressSchema = z.object({
  done: z.number(),
  total: z.number().nullable(),
  unit: z.string(),
  stage: z.string(),
});
export type DataProgress = z.infer<typeof progressSchema>;

export const toDataSchema = z.discriminatedUnion('type', [
  requestMessageSchema,
  z.object({ type: z.literal('cancel'), id: z.number() }),
]);
export type ToData = z.infer<typeof toDataSchema>;

export const fromDataSchema = z.discriminatedUnion('type', [
  ...answerMessageSchemas,
  z.object({ type: z.literal('progress'), id: z.number(), progress: progressSchema }),
]);
export type FromData = z.infer<typeof fromDataSchema>;
