import { CaravanError, type ContractErrorData } from '../../shared/contract/errors.ts';
import { isLive } from '../../shared/run/transitions.ts';
import type { CrashCard, Run, RunState } from '../../shared/run/run.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { Store } from '../../store/openStore.ts';
import type { RunLock } from './runFolder.ts';
import type { StepTable } from './stepTable.ts';

/** What the folders of runs hold too: `recoverRuns` fills these tables again where they are empty. */
export const runTables = ['runs', 'steps', 'step_sources', 'step_arrays', 'evaluations'] as const;

/** A run as it is kept: what clients see, and what only this service needs. */
export interface RunRecord {
  key: number;
  run: Run;
  lock: RunLock;
  metricsBytes: number;
}

export interface RunTable {
  insert(run: Run, lock: RunLock): RunRecord;
  /** Everything of `run` that changes after it was inserted. */
  save(key: number, run: Run): void;
  saveLock(key: number, lock: RunLock): void;
  saveMetricsBytes(key: number, bytes: number): void;
  byId(id: string): RunRecord | null;
  byName(name: string): RunRecord | null;
  /** By id, name, or unique beginning of an id; null where there is none. @throws `bad_option` where several fit. */
  find(ref: string): RunRecord | null;
  /** Newest first; `after` the run of this id, at most `limit`. @throws `not_found` where it is unknown */
  list(page?: { after?: string | undefined; limit?: number | undefined }): RunRecord[];
  remove(key: number): void;
}

interface RunRow {
  key: number;
  id: string;
  name: string;
  state: RunState;
  phase: Run['phase'];
  config: string;
  lock: string;
  dir: string;
  step: number;
  total_steps: number | null;
  loss: number | null;
  tokens_per_second: number | null;
  elapsed_ms: number;
  last_checkpoint: string | null;
  step_zero_difference: number | null;
  quantization_difference: number | null;
  error: string | null;
  crash: string | null;
  note: string;
  tags: string;
  starred: number;
  archived: number;
  trashed_at: number | null;
  attempt: number;
  metrics_bytes: number;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
}

export function createRunTable(store: Store, steps: StepTable): RunTable {
  function fromRow(row: RunRow): RunRecord {
    const lock = JSON.parse(row.lock) as RunLock;
    const { first, last } = steps.firstAndLastEvaluation(row.key);
    return {
      key: row.key,
      lock,
      metricsBytes: row.metrics_bytes,
      run: {
        id: row.id,
        name: row.name,
        state: row.state,
        phase: isLive(row.state) ? row.phase : null,
        config: JSON.parse(row.config) as RunConfig,
        dir: row.dir,
        modelName: lock.model.name,
        mixName: lock.mix.name,
        step: row.step,
        totalSteps: row.total_steps,
        loss: row.loss,
        tokensPerSecond: row.tokens_per_second,
        etaMs: null,
        elapsedMs: row.elapsed_ms,
        firstEvaluation: first,
        lastEvaluation: last,
        lastCheckpoint: row.last_checkpoint,
        stepZeroDifference: row.step_zero_difference,
        quantizationDifference: row.quantization_difference,
        error: row.error === null ? null : (JSON.parse(row.error) as ContractErrorData),
        crash: row.crash === null ? null : (JSON.parse(row.crash) as CrashCard),
        note: row.note,
        tags: JSON.parse(row.tags) as string[],
        starred: row.starred === 1,
        archived: row.archived === 1,
        trashedAt: row.trashed_at,
        attempt: row.attempt,
        createdAt: row.created_at,
        startedAt: row.started_at,
        endedAt: row.ended_at,
      },
    };
  }
  const one = (row: RunRow | undefined) => (row ? fromRow(row) : null);

  const table: RunTable = {
    insert(run, lock) {
      const { lastInsertRowid: key } = store.run(
        `INSERT INTO runs (id, name, state, config, lock, dir, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
        [
          run.id,
          run.name,
          run.state,
          JSON.stringify(run.config),
          JSON.stringify(lock),
          run.dir,
          run.createdAt,
        ],
      );
      table.save(key, run);
      return { key, run, lock, metricsBytes: 0 };
    },
    save(key, run) {
      store.run(
        `UPDATE runs SET name = :name, state = :state, phase = :phase, step = :step, total_steps = :total, loss = :loss,
           tokens_per_second = :speed, elapsed_ms = :elapsed, last_checkpoint = :checkpoint,
           step_zero_difference = :stepZero, quantization_difference = :quantization, error = :error, crash = :crash,
           note = :note, tags = :tags, starred = :starred, archived = :archived, trashed_at = :trashed, attempt = :attempt, started_at = :started, ended_at = :ended
         WHERE key = :key`,
        {
          key,
          name: run.name,
          state: run.state,
          phase: run.phase,
          step: run.step,
          total: run.totalSteps,
          loss: run.loss,
          speed: run.tokensPerSecond,
          elapsed: run.elapsedMs,
          checkpoint: run.lastCheckpoint,
          stepZero: run.stepZeroDifference,
          quantization: run.quantizationDifference,
          error: run.error && JSON.stringify(run.error),
          crash: run.crash && JSON.stringify(run.crash),
          note: run.note,
          tags: JSON.stringify(run.tags),
          starred: Number(run.starred),
          archived: Number(run.archived),
          trashed: run.trashedAt,
          attempt: run.attempt,
          started: run.startedAt,
          ended: run.endedAt,
        },
      );
    },
    saveLock(key, lock) {
      store.run('UPDATE runs SET lock = ? WHERE key = ?', [JSON.stringify(lock), key]);
    },
    saveMetricsBytes(key, bytes) {
      store.run('UPDATE runs SET metrics_bytes = ? WHERE key = ?', [bytes, key]);
    },
    byId: (id) => one(store.get('SELECT * FROM runs WHERE id = ?', [id])),
    byName: (name) => one(store.get('SELECT * FROM runs WHERE name = ?', [name])),
    find(ref) {
      const exact = table.byId(ref) ?? table.byName(ref);
      if (exact || ref === '') return exact;
      const starting = store.all<RunRow>('SELECT * FROM runs WHERE substr(id, 1, length(:ref)) = :ref', {
        ref,
      });
      if (starting.length > 1)
        throw new CaravanError('bad_option', `'${ref}' begins the ids of ${starting.length} runs`, {
          mend: `Say which: ${starting.map(({ id, name }) => `${id} (${name})`).join(', ')}.`,
        });
      return one(starting[0]);
    },
    list({ after, limit = -1 } = {}) {
      const order = 'ORDER BY created_at DESC, key DESC LIMIT ?';
      if (after === undefined) return store.all<RunRow>(`SELECT * FROM runs ${order}`, [limit]).map(fromRow);
      const from = store.get<{ created_at: number; key: number }>(
        'SELECT created_at, key FROM runs WHERE id = ?',
        [after],
      );
      if (!from)
        throw new CaravanError('not_found', `there is no run ${after}`, { place: { field: 'after' } });
      return store
        .all<RunRow>(`SELECT * FROM runs WHERE (created_at, key) < (?, ?) ${order}`, [
          from.created_at,
          from.key,
          limit,
        ])
        .map(fromRow);
    },
    remove(key) {
      store.run('DELETE FROM runs WHERE key = ?', [key]);
    },
  };
  return table;
}
