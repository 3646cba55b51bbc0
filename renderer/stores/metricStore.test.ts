import { describe, expect, test } from 'vitest';
import type { Step } from '../../core/shared/run/run.ts';
import { appendStep, type RunMetrics } from './metricStore.ts';

function step(number: number, loss: number | null = 1): Step {
  return {
    step: number,
    epoch: 0,
    loss,
    lossBySource: [{ source: 'math', loss, targetTokens: 4 }],
    balanceLoss: null,
    balanceGradNorm: null,
    lr: 1e-3,
    gradNorm: 1,
    skipped: loss === null,
    tokens: 8,
    targetTokens: 4,
    paddingTokens: 0,
    stepMs: 10,
    tokensPerSecond: 800,
    memoryBytes: 1,
    expertShares: [],
    at: 0,
  };
}

const fresh = (): RunMetrics => ({
  series: new Map(),
  sources: [],
  evaluations: [],
  lastSteps: [],
  log: [],
  loading: 'ready',
});

describe('appendStep', () => {
  test('feeds every metric and each source', () => {
    const metrics = fresh();
    appendStep(metrics, step(1));
    appendStep(metrics, step(2, null));
    expect(metrics.sources).toEqual(['math']);
    expect(metrics.series.get('loss/math')!.length).toBe(2);
    expect(metrics.series.get('loss')!.lastValue).toBeNull();
    expect(metrics.series.get('lr')!.lastValue).toBe(1e-3);
  });

  test('keeps the last 64 steps whole, and none that a resume superseded', () => {
    const metrics = fresh();
    for (let number = 1; number <= 100; number++) appendStep(metrics, step(number));
    expect(metrics.lastSteps.map((one) => one.step)).toEqual(Array.from({ length: 64 }, (_, i) => 37 + i));
    appendStep(metrics, step(81, 5));
    expect(metrics.lastSteps.at(-1)).toMatchObject({ step: 81, loss: 5 });
    expect(metrics.lastSteps.filter((one) => one.step === 81)).toHaveLength(1);
    expect(metrics.series.get('loss')!.lastStep).toBe(81);
  });
});
