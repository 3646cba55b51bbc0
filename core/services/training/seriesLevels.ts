/**
 * A run's metrics as buckets of 16, 256, 4096 and 65,536 steps, each with its last, lowest and highest value and how many
 * were not finite. A curve is read from the coarsest level that is finer than its pixels, so that a million steps cost no
 * more than a thousand.
 */
import type { StepMetric } from '../../shared/run/metrics.ts';
import type { SqlValue, Store } from '../../store/openStore.ts';

/** Steps of a bucket grow by this factor from level to level. Level 0 is the steps themselves. */
const fanOut = 16;
export const levels = 4;

/** Metrics that a chart is laid along, beside the step itself. They only grow. */
export const axisMetrics = ['tokensSeen', 'trainedMs'] as const;
export type StoredMetric = StepMetric | (typeof axisMetrics)[number];

export const metricColumns: Record<StoredMetric, string> = {
  loss: 'loss',
  balanceLoss: 'balance_loss',
  balanceGradNorm: 'balance_grad_norm',
  lr: 'lr',
  gradNorm: 'grad_norm',
  tokensPerSecond: 'tokens_per_second',
  memoryBytes: 'memory_bytes',
  stepMs: 'step_ms',
  tokensSeen: 'tokens_seen',
  trainedMs: 'trained_ms',
};

export interface SeriesLevels {
  /** Brings the buckets up to date that hold steps `from` to `to`, which are in their tables. Inside a transaction. */
  extend(run: number, from: number, to: number, sources: readonly string[]): void;
  /** Drops what lies past a step, of which its tables hold nothing any more. Inside a transaction. */
  cut(run: number, afterStep: number): void;
  /** The last step that is in a bucket; 0 where none is. */
  filledTo(run: number): number;
}

/** Steps of a bucket. */
export function bucketSteps(level: number): number {
  return fanOut ** level;
}

/** The coarsest level whose buckets are no wider than `width` steps. */
export function levelFor(width: number): number {
  let level = 0;
  while (level < levels && bucketSteps(level + 1) <= width) level++;
  return level;
}

// The joins are CROSS JOINs, which SQLite leaves in their order: by its own choice it reads every step of the run and looks
// each up among the few buckets.
export function createSeriesLevels(store: Store): SeriesLevels {
  function extendFirst(
    metric: string,
    {
      table,
      column,
      where,
      params,
    }: { table: string; column: string; where: string; params: Record<string, SqlValue> },
    run: number,
    from: number,
    to: number,
  ): void {
    store.run(
      `INSERT OR REPLACE INTO series_levels
         SELECT :run, :metric, 1, bucket, found.step, last.${column}, low, high, lost FROM
           (SELECT (step - 1) / ${fanOut} AS bucket, max(step) AS step, min(${column}) AS low, max(${column}) AS high,
              sum(${column} IS NULL) AS lost
            FROM ${table} WHERE run_key = :run AND step BETWEEN :from AND :to ${where} GROUP BY 1) AS found
           CROSS JOIN ${table} AS last ON last.run_key = :run AND last.step = found.step ${where}`,
      { run, metric, from, to, ...params },
    );
  }

  /** From the level below. */
  function extendNext(metric: string, level: number, run: number, from: number, to: number): void {
    store.run(
      `INSERT OR REPLACE INTO series_levels
         SELECT :run, :metric, :level, found.bucket, last.step, last.value, found.low, found.high, lost FROM
           (SELECT bucket / ${fanOut} AS bucket, max(bucket) AS newest, min(low) AS low, max(high) AS high,
              sum(non_finite) AS lost
            FROM series_levels
            WHERE run_key = :run AND metric = :metric AND level = :level - 1 AND bucket BETWEEN :from AND :to
            GROUP BY 1) AS found
           CROSS JOIN series_levels AS last ON last.run_key = :run AND last.metric = :metric AND last.level = :level - 1
             AND last.bucket = found.newest`,
      { run, metric, level, from, to },
    );
  }

  return {
    extend(run, from, to, sources) {
      // Whole buckets of the first level; the levels above follow from what stands in the one below.
      const first = Math.floor((from - 1) / fanOut) * fanOut + 1;
      const last = (Math.floor((to - 1) / fanOut) + 1) * fanOut;
      const metrics = Object.entries(metricColumns).map(([metric, column]) => ({
        metric,
        source: { table: 'steps', column, where: '', params: {} },
      }));
      const losses = sources.map((source) => ({
        metric: `loss/${source}`,
        source: { table: 'step_sources', column: 'loss', where: 'AND source = :source', params: { source } },
      }));
      for (const { metric, source } of [...metrics, ...losses]) {
        extendFirst(metric, source, run, first, last);
        for (let level = 2; level <= levels; level++) {
          const below = (step: number) => Math.floor((step - 1) / bucketSteps(level)) * fanOut;
          extendNext(metric, level, run, below(from), below(to) + fanOut - 1);
        }
      }
    },
    cut(run, afterStep) {
      store.run('DELETE FROM series_levels WHERE run_key = ? AND step > ?', [run, afterStep]);
    },
    filledTo: (run) =>
      store.get<{ step: number | null }>(
        `SELECT max(step) AS step FROM series_levels WHERE run_key = ? AND metric = 'lr' AND level = ?`,
        [run, levels],
      )?.step ?? 0,
  };
}
