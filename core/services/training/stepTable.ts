import { CaravanError } from '../../shared/contract/errors.ts';
import { stepMetrics, type StepMetric } from '../../shared/run/metrics.ts';
import type { Evaluation, Series, Step } from '../../shared/run/run.ts';
import type { SqlValue, Store } from '../../store/openStore.ts';
import type { EvaluationLine, StepLine } from './metricsLog.ts';

/** Steps and evaluations of runs, addressed by the run's key. */
export interface StepTable {
  /** Inside a transaction of the caller's. A step that is there already is replaced. */
  addStep(run: number, line: StepLine): void;
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

export interface SeriesRequest {
  metrics: string[];
  /** Experts a layer, to find a share in its array. */
  numExperts: number;
  fromStep?: number | undefined;
  toStep?: number | undefined;
  buckets: number;
}

export type BucketedSeries = Series & { min: (number | null)[]; max: (number | null)[] };

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

const columns: Record<StepMetric, string> = {
  loss: 'loss',
  balanceLoss: 'balance_loss',
  balanceGradNorm: 'balance_grad_norm',
  lr: 'lr',
  gradNorm: 'grad_norm',
  tokensPerSecond: 'tokens_per_second',
  memoryBytes: 'memory_bytes',
  stepMs: 'step_ms',
};

export function createStepTable(store: Store): StepTable {
  return {
    addStep(run, line) {
      // Sources lie by name first, so that finding those of one step means reading them all: only where it was there before.
      if (store.get('SELECT 1 FROM steps WHERE run_key = ? AND step = ?', [run, line.step]))
        store.run('DELETE FROM step_sources WHERE run_key = ? AND step = ?', [run, line.step]);
      store.run(`INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, [
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
      });
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
      store.get<{ most: number | null }>('SELECT max(memory_bytes) AS most FROM steps WHERE run_key = ?', [
        run,
      ])?.most ?? null,
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
    async readSeries(run, { metrics, numExperts, fromStep, toStep, buckets }) {
      const range = store.get<{ first: number | null; last: number | null }>(
        'SELECT min(step) AS first, max(step) AS last FROM steps WHERE run_key = ?',
        [run],
      )!;
      const from = Math.max(fromStep ?? -Infinity, range.first ?? 0);
      const to = Math.min(toStep ?? Infinity, range.last ?? -1);
      const width = Math.max(1, Math.ceil((to - from + 1) / buckets));
      return Promise.all(
        metrics.map(async (metric) => {
          const { value, table, where, params } = sourceOf(metric, numExperts);
          // Of each bucket its extremes, and the value at its last step: spikes survive, and the line ends where it is.
          const rows = await store.query<{
            step: number;
            value: number | null;
            low: number | null;
            high: number | null;
          }>(
            `SELECT bucket.step, ${value} AS value, low, high FROM
               (SELECT max(step) AS step, min(${value}) AS low, max(${value}) AS high FROM ${table}
                WHERE run_key = :run AND step BETWEEN :from AND :to ${where}
                GROUP BY CAST((step - :from) / :width AS INTEGER)) AS bucket
               JOIN ${table} AS last ON last.run_key = :run AND last.step = bucket.step ${where}
             ORDER BY bucket.step`,
            { run, from, to, width, ...params },
          );
          return {
            metric,
            steps: rows.map(({ step }) => step),
            values: rows.map((row) => row.value),
            min: rows.map(({ low }) => low),
            max: rows.map(({ high }) => high),
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

/** Where a metric's values are. @throws `bad_option` for a name that no step has. */
function sourceOf(
  metric: string,
  numExperts: number,
): { value: string; table: string; where: string; params: Record<string, SqlValue> } {
  if ((stepMetrics as readonly string[]).includes(metric))
    return { value: columns[metric as StepMetric], table: 'steps', where: '', params: {} };
  const source = /^loss[:/](.+)$/s.exec(metric)?.[1];
  if (source !== undefined)
    return { value: 'loss', table: 'step_sources', where: 'AND source = :source', params: { source } };
  const [, layer, expert] = /^expertShare[:/](\d+)[:/](\d+)$/.exec(metric) ?? [];
  if (layer !== undefined && Number(expert) < numExperts)
    return {
      value: 'f32_at(expert_shares, :index)',
      table: 'step_arrays',
      where: '',
      params: { index: Number(layer) * numExperts + Number(expert) },
    };
  throw new CaravanError('bad_option', `there is no metric '${metric}'`, {
    place: { field: 'metrics' },
    mend: `Metrics are ${stepMetrics.join(', ')}, loss/SOURCE and expertShare/LAYER/EXPERT.`,
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
