/** The protocol between a host and its engine processes. Both ends parse what they receive. */
import * as z from 'zod';
import { answerMessageSchemas, requestMessageSchema } from '../process/requestMessages.ts';
import { answerSchema, samplingSchema, spelledTokenSchema, tokenRoutesSchema } from '../shared/chat/chat.ts';
import { contractErrorSchema } from '../shared/contract/errors.ts';
import { templates } from '../shared/dataset/recipe.ts';
import { messageSchema } from '../shared/dataset/source.ts';
import {
  exportLayouts,
  exportOfferSchema,
  exportRecordSchema,
  exportTypes,
  mergeBases,
} from '../shared/model/export.ts';
import { onnxProviderSchema } from '../shared/model/onnxModel.ts';
import { devices } from '../shared/run/device.ts';
import { cudaStatusSchema } from '../shared/run/cudaStatus.ts';
import type {
  BuildInfo,
  CheckpointInfo,
  CudaStatus,
  DeviceInfo,
  EvaluationMetrics,
  OpenModelOptions,
  RouteResult,
  ScoreResult,
  StepMetrics,
  TrainingPlan,
  TrainOptions,
  SessionOpened,
  TrainResult,
} from './AddonTypes.ts';

/** Any number: a loss that is not finite is news too. */
const real = z.custom<number>((value) => typeof value === 'number', 'a number');
const int32 = z.instanceof(Int32Array);
const float32 = z.instanceof(Float32Array);
const float64 = z.instanceof(Float64Array);

const phases = ['loading', 'evaluating', 'training', 'saving', 'paused', 'finished'] as const;

/** The addon checks every field of these by name; here it is enough that they are objects. */
const trainOptions = z.custom<TrainOptions>(isObject, 'training options');
const openModelOptions = z.custom<OpenModelOptions>(isObject, 'options of a model');

const sourceLoss = z.object({ source: z.string(), loss: real, targetTokens: z.number() });

const stepMetrics: z.ZodType<StepMetrics> = z.object({
  step: z.number(),
  totalSteps: z.number(),
  epoch: z.number(),
  loss: real,
  lossBySource: z.array(sourceLoss),
  balanceLoss: real,
  balanceGradNorm: real,
  lr: real,
  gradNorm: real,
  skipped: z.boolean(),
  tokens: z.number(),
  targetTokens: z.number(),
  paddingTokens: z.number(),
  stepMs: z.number(),
  tokensPerSecond: real,
  memoryBytes: z.number(),
  expertShares: float32,
  rows: int32,
  rowLosses: float32,
});

const evaluationMetrics: z.ZodType<EvaluationMetrics> = z.object({
  step: z.number(),
  loss: real,
  bySource: z.array(sourceLoss.extend({ rows: z.number() })),
  evaluationMs: z.number(),
});

const checkpointInfo: z.ZodType<CheckpointInfo> = z.object({
  step: z.number(),
  path: z.string(),
  bytes: z.number(),
  problem: z.string().nullable(),
});

const sessionOpened: z.ZodType<SessionOpened> = z.object({
  stepZeroDifference: real,
  quantizationDifference: real.nullable(),
});

const trainResult: z.ZodType<TrainResult> = z.object({
  reason: z.enum(['finished', 'stopped']),
  step: z.number(),
  totalSteps: z.number(),
  checkpoint: z.string().nullable(),
  stepZeroDifference: real,
  quantizationDifference: real.nullable(),
});

const probe = z.object({ stepMs: z.number(), tokensPerSecond: real });

const trainingPlan: z.ZodType<TrainingPlan> = z.object({
  parameters: z.object({
    base: z.number(),
    lora: z.number(),
    adapters: z.number(),
    routers: z.number(),
    trainable: z.number(),
    total: z.number(),
  }),
  memory: z.array(z.object({ item: z.string(), bytes: z.number() })),
  totalMemoryBytes: z.number(),
  hostMemoryBytes: z.number(),
  checkpointBytes: z.number(),
  rows: z.number(),
  steps: z.number(),
  warmupSteps: z.number(),
  probe: probe.nullable(),
});

const scoreResult: z.ZodType<ScoreResult & { ids: number[] }> = z.object({
  logprob: real,
  tokenLogprobs: float64,
  greedy: z.boolean(),
  ids: z.array(z.number()),
});

const routeResult: z.ZodType<RouteResult> = z.object({
  layers: z.number(),
  experts: z.number(),
  groups: z.number(),
  first: float64,
  second: float64,
  any: float64,
  tokens: float64,
});

const templateTokens = z.object({
  bos: z.string().nullable(),
  eos: z.string().nullable(),
  specials: z.array(z.string()).readonly(),
  chatTemplate: z.string().nullable(),
});

/** A conversation on its way to tokens. */
const prompt = z.object({
  messages: z.array(messageSchema),
  template: z.enum(templates),
  tokens: templateTokens,
  tokenizerPath: z.string(),
});

const deviceInfo: z.ZodType<DeviceInfo> = z.object({
  device: z.enum(devices),
  kind: z.enum(['cpu', 'cuda']),
  name: z.string(),
  units: z.number(),
  totalMemoryBytes: z.number(),
  freeMemoryBytes: z.number().nullable(),
  computeCapability: z.string().exactOptional(),
  driverVersion: z.string().exactOptional(),
});

const cudaStatus: z.ZodType<CudaStatus> = cudaStatusSchema;

const buildInfo: z.ZodType<BuildInfo> = z.object({
  version: z.string(),
  buildId: z.string(),
  compiler: z.string(),
  cuda: z.boolean(),
  simd: z.object({ built: z.array(z.string()), used: z.string() }),
});

/** A run's model: its checkpoint over its base. */
const exportedModel = z.object({
  modelDir: z.string(),
  /** '': the base as it is. */
  checkpointDir: z.string(),
  baseDtype: z.enum(['f32', 'bf16', 'nf4']),
  doubleQuant: z.boolean(),
  baseName: z.string(),
  baseIdentity: z.string(),
});

const nothing = z.object({});

/** What an engine is asked and answers. */
export const requests = {
  export: {
    params: z.object({
      exportId: z.string(),
      model: exportedModel,
      layout: z.enum(exportLayouts),
      type: z.enum(exportTypes),
      mergeInto: z.enum(mergeBases),
      /** Must not be there yet, or be empty. */
      outDir: z.string(),
      shardBytes: z.number(),
      name: z.string(),
      template: z.enum(['camelidae', 'model']),
      tokens: templateTokens,
      tokenizerPath: z.string(),
      stopIds: z.array(z.number().int()),
      run: exportRecordSchema.shape.run,
    }),
    result: exportRecordSchema,
  },
  /** What exports would take, in the order asked. */
  offerExports: {
    params: z.object({
      model: exportedModel,
      mergeInto: z.enum(mergeBases),
      asked: z.array(z.object({ layout: z.enum(exportLayouts), type: z.enum(exportTypes) })),
    }),
    result: z.array(exportOfferSchema.pick({ bytes: true, tensors: true, refusal: true })),
  },
  generate: {
    params: prompt.extend({
      model: openModelOptions,
      answerId: z.string(),
      sampling: samplingSchema,
      /** Instead of the messages: a text that is gone on with as it stands. */
      text: z.string().optional(),
      stopIds: z.array(z.number().int()),
    }),
    result: answerSchema,
  },
  renderPrompt: { params: prompt, result: z.array(spelledTokenSchema) },
  /** Of a conversation, or of a text alone. */
  routeTokens: {
    params: z.object({
      model: openModelOptions,
      of: z.union([prompt, z.object({ text: z.string(), tokenizerPath: z.string() })]),
    }),
    result: tokenRoutesSchema,
  },
  score: {
    params: z.object({
      model: openModelOptions,
      tokenizerPath: z.string(),
      rows: z.array(z.object({ context: z.string(), continuation: z.string() })),
    }),
    result: z.array(scoreResult),
  },
  route: {
    params: z.object({
      model: openModelOptions,
      tokenizerPath: z.string(),
      rows: z.array(z.object({ text: z.string(), group: z.number().int() })),
      groups: z.number().int(),
    }),
    result: routeResult,
  },
  plan: { params: z.object({ options: trainOptions }), result: trainingPlan },
  probe: { params: z.object({ options: trainOptions }), result: probe },
  listCheckpoints: { params: z.object({ checkpointDir: z.string() }), result: z.array(checkpointInfo) },
  devices: { params: nothing, result: z.array(deviceInfo) },
  onnxProviders: { params: nothing, result: z.array(onnxProviderSchema) },
  cudaStatus: { params: nothing, result: cudaStatus },
  buildInfo: { params: nothing, result: buildInfo },
} as const;

export type Requests = typeof requests;
export type RequestName = keyof Requests;
export type RequestParams<N extends RequestName> = z.infer<Requests[N]['params']>;
export type RequestResult<N extends RequestName> = z.infer<Requests[N]['result']>;

export const toEngineSchema = z.discriminatedUnion('type', [
  requestMessageSchema,
  /** An answer or an export. */
  z.object({ type: z.literal('cancel'), answerId: z.string() }),
  // One run in a process, from the first of these to its end. What it tells is also kept in the run's folder, if it has one,
  // until the host says that it has it on disk.
  z.object({ type: z.literal('train'), options: trainOptions, runDir: z.string().nullable() }),
  /** All lines told up to this one. */
  z.object({ type: z.literal('recorded'), line: z.number() }),
  z.object({ type: z.literal('pause') }),
  z.object({ type: z.literal('resume') }),
  z.object({ type: z.literal('stop'), discard: z.boolean() }),
]);
export type ToEngine = z.infer<typeof toEngineSchema>;

/** What a run tells, in order. */
export const toldSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('phase'), phase: z.enum(phases) }),
  z.object({ type: z.literal('opened'), opened: sessionOpened }),
  z.object({ type: z.literal('steps'), steps: z.array(stepMetrics) }),
  z.object({ type: z.literal('evaluation'), evaluation: evaluationMetrics }),
  z.object({ type: z.literal('checkpoint'), checkpoint: checkpointInfo }),
  z.object({ type: z.literal('log'), level: z.enum(['info', 'warning']), message: z.string() }),
  z.object({ type: z.literal('ended'), result: trainResult }),
  z.object({ type: z.literal('failed'), error: contractErrorSchema }),
]);
export type Told = z.infer<typeof toldSchema>;

export const fromEngineSchema = z.discriminatedUnion('type', [
  ...answerMessageSchemas,
  /** New text of an answer, and how many tokens it has so far. */
  z.object({ type: z.literal('token'), id: z.number(), text: z.string(), tokens: z.number() }),
  /** How far an export is. */
  z.object({
    type: z.literal('progress'),
    id: z.number(),
    stage: z.string(),
    done: z.number(),
    total: z.number(),
  }),
  /** How much of the base model a training run has read. */
  z.object({ type: z.literal('loading'), done: z.number(), total: z.number() }),
  /** `line`: number of the last line of the journal that this is in; steps have one each. */
  z.object({ type: z.literal('told'), line: z.number(), told: toldSchema }),
]);
export type FromEngine = z.infer<typeof fromEngineSchema>;

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}
