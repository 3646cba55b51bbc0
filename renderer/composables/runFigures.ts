/** Figures of a run as lists and headers show them. */
import { formatCount, formatMetric } from '../../core/shared/format.ts';
import type { Run, Step } from '../../core/shared/run/run.ts';

const methodNames = { pesc: 'PESC', lora: 'LoRA', full: 'Full', upcycle: 'Upcycle' } as const;

/** "PESC 8×512, top 2", "LoRA r 64", "Full". */
export function methodWords({ config }: Run, long = false): string {
  const title = methodNames[config.method];
  if (!long) return title;
  if (config.method === 'pesc')
    return `${title} ${config.numExperts} × ${config.adapterDim}, top ${config.topK}`;
  if (config.method === 'upcycle') return `${title} ${config.numExperts} experts, top ${config.topK}`;
  return config.method === 'lora' ? `${title} r ${config.loraRank}` : title;
}

/** The last part of a checkpoint's path, `step-000120`; paths of either platform. */
export function checkpointName(path: string): string {
  return path.split(/[\\/]/).findLast((part) => part !== '') ?? path;
}

export function lossWords(loss: number | null | undefined): string {
  return loss === null || loss === undefined ? '–' : formatMetric(loss);
}

/** Steps are counted exactly: "1,804", "20,000". */
export function stepWords(step: number | null): string {
  return step === null ? '?' : step.toLocaleString('en');
}

/** Tokens per second over the last steps: a single step of a small model says little. */
export function recentRate(steps: readonly Step[], window = 20): number | null {
  const recent = steps.slice(-window);
  const ms = recent.reduce((sum, step) => sum + step.stepMs, 0);
  return ms === 0 ? null : (1000 * recent.reduce((sum, step) => sum + step.tokens, 0)) / ms;
}

export function rateWords(tokensPerSecond: number | null): string {
  return tokensPerSecond === null ? '–' : formatCount(Math.round(tokensPerSecond));
}

/** "−12.3 %" with a true minus, for columns. */
export function changeWords(change: number): string {
  return `${change < 0 ? '−' : '+'}${(Math.abs(change) * 100).toFixed(1)} %`;
}
