/** What the host is at, as the desktop shows it: in the tray, on the taskbar, by notifications, by keeping awake. */
import { isEnded, type Job } from '../../core/shared/job/job.ts';
import type { Client } from '../../core/shared/contract/client.ts';

export interface WorkSummary {
  /** Neither ended nor held back by its owner. */
  jobs: readonly Job[];
  /** Some of them train: the machine must not fall asleep. */
  isTraining: boolean;
  /** Share done, of the training where there is one, else of the first job that knows; null: unknown; -1: nothing is at work. */
  share: number | null;
  /** "Training pesc-demo, 34 %" */
  line: string;
}

/** Kinds whose end is worth a word to somebody who is looking elsewhere. */
const told: ReadonlySet<Job['kind']> = new Set([
  'train',
  'import',
  'mix',
  'model',
  'export',
  'mix-export',
  'demo',
]);

export function summarise(all: Iterable<Job>): WorkSummary {
  const jobs = [...all].filter((job) => !isEnded(job.state) && !job.held);
  const active = jobs.filter(({ state }) => state !== 'queued');
  const main = active.find(({ kind }) => kind === 'train') ?? active[0];
  if (main === undefined)
    return {
      jobs,
      isTraining: false,
      share: jobs.length > 0 ? null : -1,
      line: jobs.length > 0 ? 'Waiting' : 'Nothing at work',
    };
  const { progress } = main;
  const share = progress !== null && progress.total ? Math.min(1, progress.done / progress.total) : null;
  const more = jobs.length > 1 ? `, and ${jobs.length - 1} more` : '';
  return {
    jobs,
    isTraining: active.some(({ kind, state }) => kind === 'train' && state !== 'paused'),
    share,
    line: `${main.title}${main.state === 'paused' ? ' (paused)' : ''}${share === null ? '' : `, ${Math.floor(share * 100)} %`}${more}`,
  };
}

export interface Ending {
  title: string;
  body: string;
  path: string;
}

/** What to say of a job that has just ended; null where nothing is. */
export function endingOf(job: Job): Ending | null {
  if (!told.has(job.kind) || !isEnded(job.state) || job.state === 'cancelled') return null;
  const how = { completed: 'done', failed: 'failed', interrupted: 'was interrupted' }[
    job.state as 'completed' | 'failed' | 'interrupted'
  ];
  return {
    title: `${job.title}: ${how}`,
    body: job.error?.message ?? '',
    path: job.kind === 'train' && job.subjectId !== null ? `/runs/${job.subjectId}` : '/jobs',
  };
}

export interface WorkListener {
  onSummary(summary: WorkSummary): void;
  onEnding(ending: Ending): void;
}

/** Follows the host's jobs over one client, until that closes. */
export async function watchWork(client: Client, listener: WorkListener): Promise<void> {
  const known = new Map<string, Job>();
  const tell = () => listener.onSummary(summarise(known.values()));
  client.on('jobChanged', (job) => {
    const before = known.get(job.id);
    if (isEnded(job.state)) known.delete(job.id);
    else known.set(job.id, job);
    const ending = before === undefined ? null : endingOf(job);
    if (ending !== null) listener.onEnding(ending);
    tell();
  });
  client.onClose(() => {
    known.clear();
    tell();
  });
  for (const job of await client.call('listJobs', {})) if (!isEnded(job.state)) known.set(job.id, job);
  tell();
}
