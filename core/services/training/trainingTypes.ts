import type { DataProcess } from '../../data/client.ts';
import type { Engines } from '../../engine/client.ts';
import type { Clock } from '../../shared/clock.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { Store } from '../../store/openStore.ts';
import type { Datasets } from '../datasets/index.ts';
import type { Jobs } from '../jobs/index.ts';
import type { Models, TrainedModel } from '../models/index.ts';
import type { Pace } from './stopDeadline.ts';

export type TrainingCalls =
  | 'planRun'
  | 'planLargest'
  | 'readPrediction'
  | 'startRun'
  | 'resumeRun'
  | 'pauseRun'
  | 'continueRun'
  | 'stopRun'
  | 'listRuns'
  | 'getRun'
  | 'findRun'
  | 'updateRun'
  | 'trashRun'
  | 'restoreRun'
  | 'removeRun'
  | 'readSteps'
  | 'readSeries'
  | 'readEvaluations'
  | 'readRunLog'
  | 'readStepRows';

export interface TrainingDeps {
  store: Store;
  /** The home folder: runs/ below it is this service's. */
  home: string;
  emit: EmitEvent;
  jobs: Jobs;
  data: DataProcess;
  engines: Engines;
  models: Models;
  datasets: Datasets;
  /** Caravan's version, for run.lock.json. */
  version: string;
  clock?: Clock;
  /** Bytes that a run may take; by default what the system says is available, within this process's limits. */
  memory?: () => { availableBytes: number; totalBytes: number };
  /** Free bytes of the disk that holds a folder. */
  freeDiskBytes?: (dir: string) => Promise<number>;
  /** How long an engine that was asked to stop may say nothing before it is killed. @default stopPatienceMs */
  stopPatienceMs?: (pace: Pace) => number;
  /** For the host's own log: a run folder that cannot be read, say. */
  warn?: (message: string) => void;
}

/** For the other services and the host. */
export interface Training {
  /** See ModelsDeps. @throws `wrong_state` for a run that has no checkpoint yet. */
  trainedModel(ref: string): Promise<TrainedModel | null>;
  /** Engine processes that train, for the system's list. */
  processes(): { name: string; pid: number; runId: string }[];
  /** Whether any run is queued, running, paused or stopping. */
  readonly busy: boolean;
  /** Resolves when runs that an earlier host left behind are marked and their metrics indexed. */
  readonly recovered: Promise<void>;
}

/** Close it before the jobs: it stops what trains with a checkpoint. */
export interface TrainingService extends Service<TrainingCalls> {
  readonly training: Training;
}
