import type { ContractErrorData } from '../../shared/contract/errors.ts';
import type { Job, JobProgress } from '../../shared/job/job.ts';
import type { Store } from '../../store/openStore.ts';

interface JobRow {
  id: string;
  kind: Job['kind'];
  title: string;
  state: Job['state'];
  progress: string | null;
  subject_id: string | null;
  can_pause: number;
  can_cancel: number;
  error: string | null;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
}

/** Ended jobs that are kept; older ones make room. */
const keptJobs = 500;

export interface JobTable {
  save(job: Job): void;
  get(id: string): Job | null;
  /** Newest first. */
  list(): Job[];
  addLine(id: string, n: number, line: string): void;
  lines(id: string): string[];
  /** What a host that is gone left unfinished ends as interrupted. */
  interruptUnfinished(at: number, error: ContractErrorData): void;
}

export function createJobTable(store: Store): JobTable {
  return {
    save(job) {
      store.run(
        `INSERT INTO jobs VALUES (:id, :kind, :title, :state, :progress, :subject, :canPause, :canCancel, :error, :created, :started, :ended)
         ON CONFLICT (id) DO UPDATE SET state = :state, progress = :progress, subject_id = :subject, can_pause = :canPause,
           can_cancel = :canCancel, error = :error, started_at = :started, ended_at = :ended`,
        {
          id: job.id,
          kind: job.kind,
          title: job.title,
          state: job.state,
          progress: job.progress && JSON.stringify(job.progress),
          subject: job.subjectId,
          canPause: Number(job.canPause),
          canCancel: Number(job.canCancel),
          error: job.error && JSON.stringify(job.error),
          created: job.createdAt,
          started: job.startedAt,
          ended: job.endedAt,
        },
      );
    },
    get(id) {
      const row = store.get<JobRow>('SELECT * FROM jobs WHERE id = ?', [id]);
      return row ? fromRow(row) : null;
    },
    list: () => store.all<JobRow>('SELECT * FROM jobs ORDER BY created_at DESC, rowid DESC').map(fromRow),
    addLine(id, n, line) {
      store.run('INSERT INTO job_lines VALUES (?, ?, ?)', [id, n, line]);
    },
    lines: (id) =>
      store
        .all<{ line: string }>('SELECT line FROM job_lines WHERE job_id = ? ORDER BY n', [id])
        .map(({ line }) => line),
    interruptUnfinished(at, error) {
      store.transaction(() => {
        store.run(
          `UPDATE jobs SET state = 'interrupted', ended_at = ?, error = ?
           WHERE state IN ('queued', 'running', 'paused', 'stopping')`,
          [at, JSON.stringify(error)],
        );
        store.run(
          'DELETE FROM jobs WHERE rowid NOT IN (SELECT rowid FROM jobs ORDER BY created_at DESC, rowid DESC LIMIT ?)',
          [keptJobs],
        );
      });
    },
  };
}

function fromRow(row: JobRow): Job {
  return {
    id: row.id,
    kind: row.kind,
    title: row.title,
    state: row.state,
    progress: row.progress === null ? null : (JSON.parse(row.progress) as JobProgress),
    subjectId: row.subject_id,
    place: null,
    held: false,
    canPause: row.can_pause === 1,
    canCancel: row.can_cancel === 1,
    error: row.error === null ? null : (JSON.parse(row.error) as ContractErrorData),
    createdAt: row.created_at,
    startedAt: row.started_at,
    endedAt: row.ended_at,
  };
}
