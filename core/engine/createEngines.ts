import { fileURLToPath } from 'node:url';
import { forkProcess, type SpawnProcess } from '../process/supervise.ts';
import type { Engines } from './client.ts';
import { createInferenceEngine } from './createInferenceEngine.ts';
import { startTraining } from './startTraining.ts';

export interface EnginesOptions {
  /** How a process is started: Node's fork, or Electron's utility process. @default forkProcess */
  spawn?: SpawnProcess;
  /** @default main.ts beside this file */
  entry?: string;
  /** After how long without a sign of life the inference engine is killed. */
  inferenceSilenceMs?: number;
}

/** Starts no process yet. */
export function createEngines(options: EnginesOptions = {}): Engines {
  const { spawn = forkProcess, entry = fileURLToPath(new URL('main.ts', import.meta.url)) } = options;
  return {
    startTraining: (trainOptions, listener, runDir) =>
      startTraining(entry, spawn, trainOptions, listener, runDir ?? null),
    inference: createInferenceEngine(entry, spawn, options.inferenceSilenceMs),
  };
}
