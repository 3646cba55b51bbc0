import { CaravanError } from '../../shared/contract/errors.ts';
import type { Evaluation, Series, Step } from '../../shared/run/run.ts';
import type { SqlValue, Store } from '../../store/openStore.ts';
import type { EvaluationLine, StepLine } from './metricsLog.ts';
import {
  bucketSteps,
  createSeriesLevels,
  levelFor,
  levels,
  metricColumns,
  type StoredMetric,
} from './seriesLevels.ts';

/** Steps and evaluations of runs, addressed by the run's key. */
export interface StepTable {
  /** Inside a transaction of the caller's. A step that is there already is replaced. */
  addStep(run: number, line: StepLine): void;
  /** After `addStep` of steps `from` to `to`, in the same transaction: what curves are read from. */
  addBuckets(run: number, from: number, to: number, sources: readonly string[]): void;
  /** A turn's worth of what a run lacks that was written before there were any. @returns whether it lacks no more */
  fillBuckets(run: number): boolean;
  addEvaluation(run: number, line: EvaluationLine): void;
  /** Drops what an earlier attempt wrote past the step that training resumes from. */
  supersede(run: number, afterStep: number): void;
  evaluations(run: number): Evaluation[];
  /** For lists, which need no more; null each where there is none. */
  firstAndLastEvaluation(run: number): { first: Evaluation | null; last: Evaluation | null };
  /** The newest step. */
  last(
    run: number,
  ): { step: number; loss: number | null; tokensPerSecond: number; memoryBytes: number } | null;
  /** The most that a step held; null without steps. */
  peakMemory(run: number): number | null;
  readSteps(run: number, fromStep: number, limit: number): Promise<Step[]>;
  readSeries(run: number, request: SeriesRequest): Promise<BucketedSeries[]>;
  /** Rows that a step saw with their losses; null where there is no such step. */
  rowsOf(run: number, step: number): { row: number; loss: number | null }[] | null;
}

/** Steps whose buckets are made before others get their turn. */
const stepsATurn = 4096;

export interface SeriesRequest {
  metrics: string[];
  /** Experts a layer, to find a share in its array. */
  numExperts: number;
  fromStep?: number | undefined;
  toStep?: number | undefined;
  buckets: number;
}

export type BucketedSeries = Series & {
  min: (number | null)[];
  max: (number | null)[];
  /** Steps of each bucket whose value was not finite. */
  nonFinite: number[];
};

interface StepRow {
  step: number;
  epoch: number;
  loss: number | null;
  balance_loss: number | null;
  balance_grad_norm: number | null;
  lr: number;
  grad_norm: number | null;
  skipped: number;
  tokens: number;
  target_tokens: number;
  padding_tokens: number;
  step_ms: number;
  tokens_per_second: number;
  memory_bytes: number;
  at: number;
  expert_shares: Uint8Array;
}

interface EvaluationRow {
  step: number;
  loss: number | null;
  by_source: string;
}

export function createStepTable(store: Store): StepTable {
  const buckets = createSeriesLevels(store);

  /** Sources lie by name first: one look-up each, however many steps there are. */
  function sourcesOf(run: number): string[] {
    return store
      .all<{ source: string }>(
        `WITH RECURSIVE names (source) AS (
           SELECT min(source) FROM step_sources WHERE run_key = :run
           UNION ALL
           SELECT (SELECT min(source) FROM step_sources WHERE run_key = :run AND source > names.source)
           FROM names WHERE names.source IS NOT NULL)
         SELECT source FROM names WHERE source IS NOT NULL`,
        { run },
      )
      .map(({ source }) => source);
  }

  /** Two look-ups; asked for both at once, SQLite reads every step. */
  function rangeOf(run: number): { first: number | null; last: number | null } {
    return store.get<{ first: number | null; last: number | null }>(
      `SELECT (SELECT min(step) FROM steps WHERE run_key = :run) AS first,
         (SELECT max(step) FROM steps WHERE run_key = :run) AS last`,
      { run },
    )!;
  }

  /** Of each bucket its extremes, and the value at its last step: spikes survive, and the line ends where it is. */
  // Numbers are bound as floats, and would divide as such.
  function readSteps({ value, table, where, params }: MetricSource, cut: Cut): Promise<BucketRow[]> {
    const { run, wide, first, last } = cut;
    return store.query<BucketRow>(
      `SELECT bucket.step, ${value} AS value, low, high, lost FROM
         (SELECT max(step) AS step, min(${value}) AS low, max(${value}) AS high, sum(${value} IS NULL) AS lost
          FROM ${table} WHERE run_key = :run AND step BETWEEN :from AND :to ${where}
          GROUP BY (step - 1) / CAST(:wide AS INTEGER)) AS bucket
         CROSS JOIN ${table} AS last ON last.run_key = :run AND last.step = bucket.step ${where}
       ORDER BY bucket.step`,
      { run, wide, from: first * wide + 1, to: (last + 1) * wide, ...params },
    );
  }

  function readLevel(metric: string, level: number, { run, wide, first, last }: Cut): Promise<BucketRow[]> {
    const per = wide / bucketSteps(level);
    return store.query<BucketRow>(
      `SELECT last.step, last.value, found.low, found.high, lost FROM
         (SELECT max(bucket) AS bucket, min(low) AS low, max(high) AS high, sum(non_finite) AS lost
          FROM series_levels
          WHERE run_key = :run AND metric = :metric AND level = :level AND bucket BETWEEN :from AND :to
          GROUP BY bucket / CAST(:per AS INTEGER)) AS found
         CROSS JOIN series_levels AS last ON last.run_key = :run AND last.metric = :metric AND last.level = :level
           AND last.bucket = found.bucket
       ORDER BY last.step`,
      { run, metric, level, per, from: first * per, to: (last + 1) * per - 1 },
    );
  }

  return {
    addStep(run, line) {
      // Sources lie by name first, so that finding those of one step means reading them all: only where it was there before.
      if (store.get('SELECT 1 FROM steps WHERE run_key = ? AND step = ?', [run, line.step]))
        store.run('DELETE FROM step_sources WHERE run_key = ? AND step = ?', [run, line.step]);
      const before = store.get<{ tokens: number; ms: number }>(
        `SELECT tokens_seen AS tokens, trained_ms AS ms FROM steps WHERE run_key = ? AND step < ?
         ORDER BY step DESC LIMIT 1`,
        [run, line.step],
      );
      store.run(`INSERT OR REPLACE INTO steps VALUES (${Array(19).fill('?').join()})`, [
        run,
        line.step,
        line.attempt,
        line.epoch,
        line.loss,
        line.balanceLoss,
        line.balanceGradNorm,
        line.lr,
        line.gradNorm,
        Number(line.skipped),
        line.tokens,
        line.targetTokens,
        line.paddingTokens,
        line.stepMs,
        line.tokensPerSecond,
        line.memoryBytes,
        line.at,
        (before?.tokens ?? 0) + line.tokens,
        (before?.ms ?? 0) + line.stepMs,
      ]);
      for (const { source, loss, targetTokens } of line.lossBySource)
        store.run('INSERT OR REPLACE INTO step_sources VALUES (?, ?, ?, ?, ?)', [
          run,
          source,
          line.step,
          loss,
          targetTokens,
        ]);
      store.run('INSERT OR REPLACE INTO step_arrays VALUES (?, ?, ?, ?, ?)', [
        run,
        line.step,
        bytes(Float32Array.from(line.expertShares)),
        bytes(Int32Array.from(line.rows)),
        bytes(Float32Array.from(line.rowLosses, (loss) => loss ?? NaN)),
      ]);
    },
    addEvaluation(run, { step, loss, bySource }) {
      store.run('INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?)', [
        run,
        step,
        loss,
        JSON.stringify(bySource),
      ]);
    },
    supersede(run, afterStep) {
      store.transaction(() => {
        for (const table of ['steps', 'step_sources', 'step_arrays', 'evaluations'])
          store.run(`DELETE FROM ${table} WHERE run_key = ? AND step > ?`, [run, afterStep]);
        buckets.cut(run, afterStep);
        if (afterStep > 0) buckets.extend(run, afterStep, afterStep, sourcesOf(run));
      });
    },
    addBuckets(run, from, to, sources) {
      buckets.extend(run, from, to, sources);
    },
    fillBuckets(run) {
      const { first, last } = rangeOf(run);
      if (first === null || last === null) return true;
      const from = Math.max(first, buckets.filledTo(run) + 1);
      if (from > last) return true;
      const to = Math.min(last, from + stepsATurn - 1);
      store.transaction(() => buckets.extend(run, from, to, sourcesOf(run)), { durable: false });
      return to === last;
    },
    evaluations: (run) =>
      store
        .all<EvaluationRow>('SELECT step, loss, by_source FROM evaluations WHERE run_key = ? ORDER BY step', [
          run,
        ])
        .map(evaluationFrom),
    firstAndLastEvaluation(run) {
      const one = (order: 'ASC' | 'DESC') => {
        const row = store.get<EvaluationRow>(
          `SELECT step, loss, by_source FROM evaluations WHERE run_key = ? ORDER BY step ${order} LIMIT 1`,
          [run],
        );
        return row ? evaluationFrom(row) : null;
      };
      return { first: one('ASC'), last: one('DESC') };
    },
    last: (run) =>
      store.get(
        `SELECT step, loss, tokens_per_second AS tokensPerSecond, memory_bytes AS memoryBytes
         FROM steps WHERE run_key = ? ORDER BY step DESC LIMIT 1`,
        [run],
      ) ?? null,
    peakMemory: (run) =>
      store.get<{ most: number | null }>(
        `SELECT max(high) AS most FROM series_levels WHERE run_key = ? AND metric = 'memoryBytes' AND level = ?`,
        [run, levels],
      )?.most ?? null,
    async readSteps(run, fromStep, limit) {
      const rows = await store.query<StepRow>(
        `SELECT steps.*, expert_shares FROM steps JOIN step_arrays USING (run_key, step)
         WHERE run_key = ? AND step >= ? ORDER BY step LIMIT ?`,
        [run, fromStep, limit],
      );
      const first = rows[0]?.step ?? 0;
      const last = rows.at(-1)?.step ?? -1;
      const losses = await store.query<{
        step: number;
        source: string;
        loss: number | null;
        targetTokens: number;
      }>(
        `SELECT step, source, loss, target_tokens AS targetTokens FROM step_sources
         WHERE run_key = ? AND step BETWEEN ? AND ?`,
        [run, first, last],
      );
      const bySource = Map.groupBy(losses, ({ step }) => step);
      return rows.map((row) => fromRow(row, bySource.get(row.step) ?? []));
    },
    async readSeries(run, { metrics, numExperts, fromStep, toStep, buckets: most }) {
      const range = rangeOf(run);
      const from = Math.max(fromStep ?? -Infinity, range.first ?? 1);
      const to = Math.min(toStep ?? Infinity, range.last ?? 0);
      const width = Math.max(1, Math.ceil((to - from + 1) / most));
      return Promise.all(
        metrics.map(async (metric) => {
          const source = sourceOf(metric, numExperts);
          const level = source.leveled === null ? 0 : levelFor(width);
          // Buckets are cut at the same steps wherever a view begins, so that a curve stands still while it is moved.
          const wide = Math.ceil(width / bucketSteps(level)) * bucketSteps(level);
          const cut = {
            run,
            from,
            to,
            wide,
            first: Math.floor((from - 1) / wide),
            last: Math.floor((to - 1) / wide),
          };
          const rows = await (source.leveled === null || level === 0
            ? readSteps(source, cut)
            : readLevel(source.leveled, level, cut));
          return {
            metric,
            steps: rows.map(({ step }) => step),
            values: rows.map(({ value }) => value),
            min: rows.map(({ low }) => low),
            max: rows.map(({ high }) => high),
            nonFinite: rows.map(({ lost }) => lost),
          };
        }),
      );
    },
    rowsOf(run, step) {
      const found = store.get<{ row_numbers: Uint8Array; row_losses: Uint8Array }>(
        'SELECT row_numbers, row_losses FROM step_arrays WHERE run_key = ? AND step = ?',
        [run, step],
      );
      if (!found) return null;
      const numbers = viewOf(found.row_numbers);
      const losses = viewOf(found.row_losses);
      return Array.from({ length: found.row_numbers.byteLength / 4 }, (_, index) => {
        const loss = index * 4 < losses.byteLength ? losses.getFloat32(index * 4, true) : NaN;
        return { row: numbers.getInt32(index * 4, true), loss: Number.isFinite(loss) ? loss : null };
      });
    },
  };
}

interface MetricSource {
  value: string;
  table: string;
  where: string;
  params: Record<string, SqlValue>;
  /** Its name in series_levels; null where it has none there. */
  leveled: string | null;
}
interface Cut {
  run: number;
  /** Steps of a bucket of the answer, and the numbers of its first and last. */
  wide: number;
  first: number;
  last: number;
}
interface BucketRow {
  step: number;
  value: number | null;
  low: number | null;
  high: number | null;
  lost: number;
}

/** Where a metric's values are. @throws `bad_option` for a name that no step has. */
function sourceOf(metric: string, numExperts: number): MetricSource {
  if (Object.hasOwn(metricColumns, metric))
    return {
      value: metricColumns[metric as StoredMetric],
      table: 'steps',
      where: '',
      params: {},
      leveled: metric,
    };
  const source = /^loss[:/](.+)$/s.exec(metric)?.[1];
  if (source !== undefined)
    return {
      value: 'loss',
      table: 'step_sources',
      where: 'AND source = :source',
      params: { source },
      leveled: `loss/${source}`,
    };
  const [, layer, expert] = /^expertShare[:/](\d+)[:/](\d+)$/.exec(metric) ?? [];
  if (layer !== undefined && Number(expert) < numExperts)
    return {
      value: 'f32_at(expert_shares, :index)',
      table: 'step_arrays',
      where: '',
      params: { index: Number(layer) * numExperts + Number(expert) },
      leveled: null,
    };
  throw new CaravanError('bad_option', `there is no metric '${metric}'`, {
    place: { field: 'metrics' },
    mend: `Metrics are ${Object.keys(metricColumns).join(', ')}, loss/SOURCE and expertShare/LAYER/EXPERT.`,
  });
}

function fromRow(
  row: StepRow,
  losses: { source: string; loss: number | null; targetTokens: number }[],
): Step {
  const shares = viewOf(row.expert_shares);
  return {
    step: row.step,
    epoch: row.epoch,
    loss: row.loss,
    lossBySource: losses.map(({ source, loss, targetTokens }) => ({ source, loss, targetTokens })),
    balanceLoss: row.balance_loss,
    balanceGradNorm: row.balance_grad_norm,
    lr: row.lr,
    gradNorm: row.grad_norm,
    skipped: row.skipped === 1,
    tokens: row.tokens,
    targetTokens: row.target_tokens,
    paddingTokens: row.padding_tokens,
    stepMs: row.step_ms,
    tokensPerSecond: row.tokens_per_second,
    memoryBytes: row.memory_bytes,
    expertShares: Array.from({ length: shares.byteLength / 4 }, (_, index) =>
      shares.getFloat32(index * 4, true),
    ),
    at: row.at,
  };
}

function evaluationFrom({ step, loss, by_source }: EvaluationRow): Evaluation {
  return { step, loss, bySource: JSON.parse(by_source) as Evaluation['bySource'] };
}

/** Every machine that runs this is little-endian, as the arrays are kept. */
function bytes(array: Float32Array | Int32Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

function viewOf(blob: Uint8Array): DataView {
  return new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
}
