import * as z from 'zod';
import { contractErrorSchema } from '../contract/errors.ts';
import { runConfigSchema } from './runConfig.ts';

export const runStates = [
  'queued',
  'running',
  'paused',
  'stopping',
  'completed',
  'stopped',
  'failed',
  'interrupted',
] as const;
export type RunState = (typeof runStates)[number];

export const runPhases = ['loading', 'evaluating', 'training', 'saving', 'paused', 'finished'] as const;

/** Shown when an engine ended without being asked to. */
export const crashCardSchema = z.object({
  exitCode: z.number().nullable(),
  signal: z.string().nullable(),
  /** The first telling line of the engine's stderr. */
  line: z.string().nullable(),
  stderrTail: z.array(z.string()),
  lastStep: z.number().nullable(),
  lastCheckpoint: z.string().nullable(),
  memoryBytes: z.number().nullable(),
  advice: z.string(),
});
export type CrashCard = z.infer<typeof crashCardSchema>;

export const evaluationSchema = z.object({
  step: z.number().int(),
  /** NaN and infinities travel as null. */
  loss: z.number().nullable(),
  bySource: z.array(
    z.object({ source: z.string(), loss: z.number().nullable(), targetTokens: z.number(), rows: z.number() }),
  ),
});
export type Evaluation = z.infer<typeof evaluationSchema>;

/** One word: letters and digits, with dots, dashes and underscores between them. */
export const tagSchema = z
  .string()
  .regex(
    /^[\p{L}\p{N}][\p{L}\p{N}._-]{0,39}$/u,
    'a tag is one word of at most 40 letters, digits, ".", "_", "-"',
  );

export const runSchema = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(runStates),
  phase: z.enum(runPhases).nullable(),
  config: runConfigSchema,
  dir: z.string(),
  modelName: z.string(),
  mixName: z.string(),
  step: z.number().int(),
  totalSteps: z.number().int().nullable(),
  /** Newest values, for lists. */
  loss: z.number().nullable(),
  tokensPerSecond: z.number().nullable(),
  etaMs: z.number().nullable(),
  elapsedMs: z.number(),
  firstEvaluation: evaluationSchema.nullable(),
  lastEvaluation: evaluationSchema.nullable(),
  lastCheckpoint: z.string().nullable(),
  stepZeroDifference: z.number().nullable(),
  quantizationDifference: z.number().nullable(),
  error: contractErrorSchema.nullable(),
  crash: crashCardSchema.nullable(),
  note: z.string(),
  tags: z.array(tagSchema),
  starred: z.boolean(),
  archived: z.boolean(),
  /** Null outside the trash. */
  trashedAt: z.number().nullable(),
  /** How often the run was resumed; points of an earlier attempt past the resume step are superseded. */
  attempt: z.number().int(),
  createdAt: z.number(),
  startedAt: z.number().nullable(),
  endedAt: z.number().nullable(),
});
export type Run = z.infer<typeof runSchema>;

/** What people call a run and mark it with. */
export type RunLabel = Pick<Run, 'name' | 'note' | 'tags' | 'starred' | 'archived' | 'trashedAt'>;

export function labelOf({ name, note, tags, starred, archived, trashedAt }: RunLabel): RunLabel {
  return { name, note, tags, starred, archived, trashedAt };
}

/** One optimizer step as it is kept and sent. Non-finite numbers travel as null beside `nonFinite`. */
export const stepSchema = z.object({
  step: z.number().int(),
  epoch: z.number(),
  loss: z.number().nullable(),
  lossBySource: z.array(
    z.object({ source: z.string(), loss: z.number().nullable(), targetTokens: z.number() }),
  ),
  balanceLoss: z.number().nullable(),
  balanceGradNorm: z.number().nullable(),
  lr: z.number(),
  gradNorm: z.number().nullable(),
  skipped: z.boolean(),
  tokens: z.number(),
  targetTokens: z.number(),
  paddingTokens: z.number(),
  stepMs: z.number(),
  tokensPerSecond: z.number(),
  memoryBytes: z.number(),
  /** (layers x experts), row-major; empty without experts. */
  expertShares: z.array(z.number()),
  /** Milliseconds since 1970. */
  at: z.number(),
});
export type Step = z.infer<typeof stepSchema>;

/** A metric's points; `value` null where it was not finite. */
export const seriesSchema = z.object({
  metric: z.string(),
  steps: z.array(z.number()),
  values: z.array(z.number().nullable()),
});
export type Series = z.infer<typeof seriesSchema>;

const plannedAndActual = z.object({ planned: z.number().nullable(), actual: z.number().nullable() });

/** What a run was planned to need, and what it needed; null where it is not known (yet). */
export const predictionSchema = z.object({
  /** The most at one time. */
  memoryBytes: plannedAndActual,
  /** Of one checkpoint. */
  checkpointBytes: plannedAndActual,
});
export type Prediction = z.infer<typeof predictionSchema>;

/** What a plan can be asked for backwards. */
export const variedFields = ['microBatchSize', 'seqLen', 'adapterDim', 'loraRank'] as const;
export type Varied = (typeof variedFields)[number];

export const planSchema = z.object({
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
  availableMemoryBytes: z.number(),
  /** On a GPU: of the machine's own memory, beside it. */
  hostMemoryBytes: z.number().exactOptional(),
  fits: z.boolean(),
  checkpointBytes: z.number(),
  /** What the kept checkpoints, the best and one being written take at most; and what the disk has left. */
  diskBytes: z.number().exactOptional(),
  freeDiskBytes: z.number().exactOptional(),
  /** Actual memory / planned over the runs so far: the smallest and the largest; null before the first. */
  track: z.object({ runs: z.number(), least: z.number(), most: z.number() }).nullable().exactOptional(),
  rows: z.number(),
  steps: z.number(),
  warmupSteps: z.number(),
  probe: z.object({ stepMs: z.number(), tokensPerSecond: z.number() }).nullable(),
  estimatedMs: z.number().nullable(),
});
export type Plan = z.infer<typeof planSchema>;
