import type { Run } from '../../shared/run/run.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { RunLock } from './runFolder.ts';

/** A run of which nothing has happened yet. */
export function newRun(dir: string, config: RunConfig, lock: RunLock): Run {
  return {
    id: lock.id,
    name: lock.name,
    state: 'queued',
    phase: null,
    config,
    dir,
    modelName: lock.model.name,
    mixName: lock.mix.name,
    step: 0,
    totalSteps: lock.totalSteps,
    loss: null,
    tokensPerSecond: null,
    etaMs: null,
    elapsedMs: 0,
    firstEvaluation: null,
    lastEvaluation: null,
    lastCheckpoint: null,
    stepZeroDifference: null,
    quantizationDifference: null,
    error: null,
    crash: null,
    note: '',
    tags: [],
    starred: false,
    archived: false,
    trashedAt: null,
    attempt: 0,
    createdAt: lock.createdAt,
    startedAt: null,
    endedAt: null,
  };
}
