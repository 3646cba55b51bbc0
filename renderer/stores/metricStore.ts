import { defineStore } from 'pinia';
import { shallowRef, type ShallowRef } from 'vue';
import { metricOfStep, sourceLossMetric, stepMetrics } from '../../core/shared/run/metrics.ts';
import type { Evaluation, Step } from '../../core/shared/run/run.ts';
import { useFrameBatch } from '../composables/useFrameBatch.ts';
import { useHost } from './host.ts';
import { MetricSeries } from './MetricSeries.ts';

const buckets = 1500;
const keptSteps = 64;
const keptLines = 2000;

/** What is known of one run's course. The arrays inside grow in place; once a frame a new object around them announces it. */
export interface RunMetrics {
  series: Map<string, MetricSeries>;
  sources: string[];
  evaluations: Evaluation[];
  /** The newest steps, whole: for expert shares. */
  lastSteps: Step[];
  log: string[];
  /** `failed` carries a sentence; the course that arrives live is shown all the same. */
  loading: 'loading' | 'ready' | { failed: string };
}

interface Waiting {
  steps: Step[];
  evaluations: Evaluation[];
  lines: string[];
}

interface Entry {
  metrics: ShallowRef<RunMetrics>;
  users: number;
  /** What arrived while history was on its way. */
  waiting: Waiting | null;
}

function emptyMetrics(): RunMetrics {
  return { series: new Map(), sources: [], evaluations: [], lastSteps: [], log: [], loading: 'loading' };
}

/** The curves of the runs that are looked at: history once, then every step as it comes. */
export const useMetricStore = defineStore('metric', () => {
  const host = useHost();
  const entries = new Map<string, Entry>();
  const changed = new Set<Entry>();
  const announce = useFrameBatch(() => {
    // A new object around the same arrays: components compare what they are given by identity.
    for (const entry of changed) entry.metrics.value = { ...entry.metrics.value };
    changed.clear();
  });
  const touch = (entry: Entry) => {
    changed.add(entry);
    announce.schedule();
  };

  function start(): void {
    host.on('runStepped', ({ id, steps }) => {
      const entry = entries.get(id);
      if (!entry) return;
      if (entry.waiting) entry.waiting.steps.push(...steps);
      else for (const step of steps) appendStep(entry.metrics.value, step);
      touch(entry);
    });
    host.on('runEvaluated', ({ id, evaluation }) => {
      const entry = entries.get(id);
      if (!entry) return;
      entry.waiting?.evaluations.push(evaluation);
      putEvaluation(entry.metrics.value, evaluation);
      touch(entry);
    });
    host.on('runLogged', ({ id, lines }) => {
      const entry = entries.get(id);
      if (!entry) return;
      entry.waiting?.lines.push(...lines);
      appendLines(entry.metrics.value, lines);
      touch(entry);
    });
    // What was missed while the connection was away is in the host's history.
    host.onConnected(() => {
      for (const [id, entry] of entries) void load(id, entry);
    });
  }

  /** Begins to follow a run's course; pair with `close`. */
  function open(id: string): ShallowRef<RunMetrics> {
    let entry = entries.get(id);
    if (!entry) {
      entry = { metrics: shallowRef(emptyMetrics()), users: 0, waiting: null };
      entries.set(id, entry);
      void load(id, entry);
    }
    entry.users++;
    return entry.metrics;
  }
  function close(id: string): void {
    const entry = entries.get(id);
    if (entry && --entry.users === 0) entries.delete(id);
  }

  async function load(id: string, entry: Entry): Promise<void> {
    if (host.state.value.kind !== 'connected') return; // onConnected comes back to it
    const waiting: Waiting = (entry.waiting = { steps: [], evaluations: [], lines: [] });
    const next = emptyMetrics();
    try {
      const [run, evaluations, log] = await Promise.all([
        host.call('getRun', { id }),
        host.call('readEvaluations', { id }),
        // Lines that were announced before this answer are in it.
        host.call('readRunLog', { id, tail: 400 }).then((answer) => {
          waiting.lines.length = 0;
          return answer;
        }),
      ]);
      next.evaluations = evaluations;
      next.log = log.lines;
      next.lastSteps = await host.call('readSteps', {
        id,
        fromStep: Math.max(0, run.step - keptSteps + 1),
        limit: keptSteps,
      });
      next.sources = sourcesOf(next);
      const metrics = [...stepMetrics, ...next.sources.map(sourceLossMetric)].slice(0, 64);
      for (const series of await host.call('readSeries', { id, metrics, buckets }))
        next.series.set(series.metric, MetricSeries.fromHistory(series));
      next.loading = 'ready';
    } catch (error) {
      if (host.state.value.kind !== 'connected') return;
      next.loading = { failed: (error as Error).message };
    }
    if (entry.waiting !== waiting) return; // a later load took over
    entry.waiting = null;
    for (const step of waiting.steps) if (step.step > lastStepOf(next)) appendStep(next, step);
    for (const evaluation of waiting.evaluations) putEvaluation(next, evaluation);
    appendLines(next, waiting.lines);
    entry.metrics.value = next;
  }

  /** A part of a run's course as finely as `buckets` allows: what a zoom into merged points shows. */
  async function readDetail(
    id: string,
    metrics: string[],
    fromStep: number,
    toStep: number,
  ): Promise<Map<string, MetricSeries>> {
    const list = await host.call('readSeries', {
      id,
      metrics: metrics.slice(0, 64),
      fromStep,
      toStep,
      buckets,
    });
    return new Map(list.map((series) => [series.metric, MetricSeries.fromHistory(series)]));
  }

  return { start, open, close, readDetail };
});

function lastStepOf(metrics: RunMetrics): number {
  return metrics.series.get('loss')?.lastStep ?? -1;
}

function sourcesOf(metrics: RunMetrics): string[] {
  const inSteps = metrics.lastSteps.flatMap((step) => step.lossBySource.map(({ source }) => source));
  const inEvaluations = metrics.evaluations.flatMap(({ bySource }) => bySource.map(({ source }) => source));
  return [...new Set([...inEvaluations, ...inSteps])].sort();
}

/** Exported for its test. A step at or before the newest one replaces what stood from there on (the run was resumed). */
export function appendStep(metrics: RunMetrics, step: Step): void {
  for (const { source } of step.lossBySource)
    if (!metrics.sources.includes(source)) metrics.sources = [...metrics.sources, source].sort();
  for (const metric of [...stepMetrics, ...metrics.sources.map(sourceLossMetric)]) {
    const value = metricOfStep(step, metric);
    if (value === undefined) continue;
    let series = metrics.series.get(metric);
    if (!series) metrics.series.set(metric, (series = new MetricSeries()));
    series.append(step.step, value);
  }
  if ((metrics.lastSteps.at(-1)?.step ?? -1) >= step.step)
    metrics.lastSteps = metrics.lastSteps.filter((earlier) => earlier.step < step.step);
  metrics.lastSteps.push(step);
  if (metrics.lastSteps.length > keptSteps) metrics.lastSteps.splice(0, metrics.lastSteps.length - keptSteps);
}

function appendLines({ log }: RunMetrics, lines: readonly string[]): void {
  log.push(...lines);
  if (log.length > keptLines) log.splice(0, log.length - keptLines);
}

function putEvaluation(metrics: RunMetrics, evaluation: Evaluation): void {
  metrics.evaluations = [...metrics.evaluations.filter(({ step }) => step < evaluation.step), evaluation];
}
