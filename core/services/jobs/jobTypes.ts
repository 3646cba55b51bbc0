import type { Clock } from '../../shared/clock.ts';
import type { CaravanError } from '../../shared/contract/errors.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { Job } from '../../shared/job/job.ts';
import type { Store } from '../../store/openStore.ts';

export type JobCalls =
  | 'listJobs'
  | 'getJob'
  | 'getJobLog'
  | 'cancelJob'
  | 'pauseJob'
  | 'resumeJob'
  | 'moveJob'
  | 'holdJob'
  | 'getQueue'
  | 'setQueue'
  | 'startQueue';

export interface JobsDeps {
  store: Store;
  emit: EmitEvent;
  clock?: Clock;
}

/** What a job needs to stay as it is: a mix or model by its folder, a source by its id. */
export type Needed = `${'mix' | 'model' | 'source'} ${string}`;

/** What a running job may tell and ask. */
export interface JobContext {
  readonly id: string;
  /** Aborted when someone cancels. */
  readonly signal: AbortSignal;
  /** May be called as often as one likes: clients hear of it ten times a second at most. */
  progress(progress: { done: number; total: number | null; unit: string; stage?: string }): void;
  log(line: string): void;
  /** Names what the job made, so that clients can open it. */
  setSubject(id: string): void;
  /** Keeps others from removing this until the job has ended. */
  need(needed: Needed): void;
  /** Gives up the lane that the job is in and waits until it is first in this one. @throws `cancelled` */
  enterLane(lane: string): Promise<void>;
  /** From here on the job cannot pause, though its task could. */
  endPausing(): void;
}

/** Work that takes its time. */
export interface JobTask {
  kind: Job['kind'];
  title: string;
  /** Jobs of one lane run one after the other, in the order they came; those without a lane start at once. */
  lane?: string;
  subjectId?: string;
  /** It does not begin before it is released. */
  held?: boolean;
  /** Told whenever its place in the queue changed, or whether it is held. */
  onPlaced?: (place: number, held: boolean) => void;
  /** What is known of it before the job begins: see JobContext.need. */
  needs?: readonly Needed[];
  /** What pauseJob and resumeJob do; without it the job cannot pause. */
  pausing?: { pause(): void; resume(): void };
  /** Told when the job ended without having run (cancelled in the queue, or the host closed). */
  onDropped?: (why: CaravanError) => void;
  /** Ends as completed; a thrown `cancelled` ends as cancelled, `interrupted` and `engine_died` as interrupted, all else as
   * failed. */
  run(context: JobContext): Promise<void>;
}

/** The queue, for the other services. */
export interface Jobs {
  submit(task: JobTask): Job;
  /** For a task that pauses for reasons of its own. */
  setPaused(id: string, paused: boolean): void;
  /** As cancelJob: drops a queued job, asks a running one to end. */
  cancel(id: string): Job;
  /** Ends a job that waits as interrupted: the host is closing. */
  drop(id: string): void;
  /** Resolves when the job has ended, however it did. */
  whenEnded(id: string): Promise<Job>;
  /** Whether a job of this lane runs, or waits for its turn alone. */
  isLaneBusy(lane: string): boolean;
  /** @throws `wrong_state`, naming the jobs and runs that need it; `what` names it to people */
  checkUnneeded(needed: Needed, what: string): void;
}

export interface JobsService extends Service<JobCalls> {
  readonly jobs: Jobs;
}
