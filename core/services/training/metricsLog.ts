/**
 * metrics.jsonl: one JSON object a line, only ever appended to. The database's tables are an index of it that can be
 * built again. A `resume` line says that what an earlier attempt wrote past its step no longer counts.
 */
import * as z from 'zod';
import type { EvaluationMetrics, SessionOpened, StepMetrics } from '../../engine/AddonTypes.ts';
import { contractErrorSchema } from '../../shared/contract/errors.ts';
import {
  crashCardSchema,
  evaluationSchema,
  runStates,
  stepSchema,
  type Evaluation,
  type Step,
} from '../../shared/run/run.ts';

const stepLineSchema = stepSchema.extend({
  type: z.literal('step'),
  attempt: z.number().int(),
  rows: z.array(z.number()),
  rowLosses: z.array(z.number().nullable()),
});
const evaluationLineSchema = evaluationSchema.extend({ type: z.literal('evaluation') });
const resumeLineSchema = z.object({
  type: z.literal('resume'),
  attempt: z.number().int(),
  /** Of the checkpoint that training goes on from; 0 without one. */
  step: z.number().int(),
  at: z.number(),
});
/** What was measured when the model stood, before the first step. */
const openedLineSchema = z.object({
  type: z.literal('opened'),
  stepZeroDifference: z.number().nullable(),
  quantizationDifference: z.number().nullable(),
});
/** How an attempt ended. */
const stateLineSchema = z.object({
  type: z.literal('state'),
  state: z.enum(runStates),
  at: z.number(),
  elapsedMs: z.number(),
  stepZeroDifference: z.number().nullable(),
  quantizationDifference: z.number().nullable(),
  error: contractErrorSchema.nullable(),
  crash: crashCardSchema.nullable(),
});
/** What people call the run, and say of it. */
const labelLineSchema = z.object({
  type: z.literal('label'),
  name: z.string(),
  note: z.string(),
  // Lines of before runs could be marked have none of these.
  tags: z.array(z.string()).default([]),
  starred: z.boolean().default(false),
  archived: z.boolean().default(false),
  trashedAt: z.number().nullable().default(null),
});

export const metricsLineSchema = z.discriminatedUnion('type', [
  stepLineSchema,
  evaluationLineSchema,
  resumeLineSchema,
  openedLineSchema,
  stateLineSchema,
  labelLineSchema,
]);
export type MetricsLine = z.infer<typeof metricsLineSchema>;
export type StepLine = z.infer<typeof stepLineSchema>;
export type EvaluationLine = z.infer<typeof evaluationLineSchema>;

export function stepLine(metrics: StepMetrics, attempt: number, at: number): StepLine {
  return {
    type: 'step',
    attempt,
    step: metrics.step,
    epoch: metrics.epoch,
    loss: finite(metrics.loss),
    lossBySource: metrics.lossBySource.map(({ source, loss, targetTokens }) => ({
      source,
      loss: finite(loss),
      targetTokens,
    })),
    balanceLoss: finite(metrics.balanceLoss),
    balanceGradNorm: finite(metrics.balanceGradNorm),
    lr: metrics.lr,
    gradNorm: finite(metrics.gradNorm),
    skipped: metrics.skipped,
    tokens: metrics.tokens,
    targetTokens: metrics.targetTokens,
    paddingTokens: metrics.paddingTokens,
    stepMs: metrics.stepMs,
    tokensPerSecond: finite(metrics.tokensPerSecond) ?? 0,
    memoryBytes: metrics.memoryBytes,
    expertShares: Array.from(metrics.expertShares, (share) => finite(single(share)) ?? 0),
    at,
    rows: Array.from(metrics.rows),
    rowLosses: Array.from(metrics.rowLosses, (loss) => finite(single(loss))),
  };
}

export function evaluationLine({ step, loss, bySource }: EvaluationMetrics): EvaluationLine {
  return {
    type: 'evaluation',
    step,
    loss: finite(loss),
    bySource: bySource.map(({ source, loss: sourceLoss, targetTokens, rows }) => ({
      source,
      loss: finite(sourceLoss),
      targetTokens,
      rows,
    })),
  };
}

export function openedLine(opened: SessionOpened): Extract<MetricsLine, { type: 'opened' }> {
  const { stepZeroDifference, quantizationDifference } = opened;
  return {
    type: 'opened',
    stepZeroDifference: finite(stepZeroDifference),
    quantizationDifference: quantizationDifference === null ? null : finite(quantizationDifference),
  };
}

/** As clients see it. */
export function stepOf({
  type: _type,
  attempt: _attempt,
  rows: _rows,
  rowLosses: _losses,
  ...step
}: StepLine): Step {
  return step;
}

export function evaluationOf({ type: _type, ...evaluation }: EvaluationLine): Evaluation {
  return evaluation;
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** Nine digits give a 32-bit float back exactly; its double would print seventeen. */
function single(value: number): number {
  return Number(value.toPrecision(9));
}
