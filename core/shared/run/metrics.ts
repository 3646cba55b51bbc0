import type { Step } from './run.ts';

/** Metrics that every step has, by the names that `readSeries` takes. */
export const stepMetrics = [
  'loss',
  'balanceLoss',
  'balanceGradNorm',
  'lr',
  'gradNorm',
  'tokensPerSecond',
  'memoryBytes',
  'stepMs',
] as const satisfies readonly (keyof Step)[];
export type StepMetric = (typeof stepMetrics)[number];

/** The loss over one source's rows, as `readSeries` names it. */
export function sourceLossMetric(source: string): string {
  return `loss/${source}`;
}

/** @returns the metric's value in a step: null where it was not finite, undefined where the step says nothing of it. */
export function metricOfStep(step: Step, metric: string): number | null | undefined {
  if (metric.startsWith('loss/'))
    return step.lossBySource.find(({ source }) => sourceLossMetric(source) === metric)?.loss;
  return (stepMetrics as readonly string[]).includes(metric) ? step[metric as StepMetric] : undefined;
}
