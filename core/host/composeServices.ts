import { join } from 'node:path';
import type { DataProcess } from '../data/client.ts';
import type { Engines } from '../engine/client.ts';
import type { HubProcess } from '../hub/client.ts';
import { createChatService } from '../services/chat/index.ts';
import { createExportsService } from '../services/exports/index.ts';
import { createDatasetsService } from '../services/datasets/index.ts';
import { createHubService } from '../services/hub/index.ts';
import { createJobsService } from '../services/jobs/index.ts';
import { createModelsService } from '../services/models/index.ts';
import { createStorageService, createSystemService, type Trashed } from '../services/system/index.ts';
import { createTrainingService, type Training } from '../services/training/index.ts';
import type { CallParams, CallResult } from '../shared/contract/contract.ts';
import type { EmitEvent, Handlers } from '../shared/contract/service.ts';
import { isEnded, type Job } from '../shared/job/job.ts';
import type { Caller } from './Dispatcher.ts';
import type { Store } from '../store/openStore.ts';

/** The calls that the host itself answers. */
export type HostCalls = 'hello' | 'shutdownHost' | 'startServe' | 'stopServe' | 'openAiStatus' | 'setOpenAi';
export type HostHandlers = {
  [N in HostCalls]: (params: CallParams<N>, caller: Caller) => CallResult<N> | Promise<CallResult<N>>;
};

export interface ComposeDeps {
  home: string;
  version: string;
  store: Store;
  data: DataProcess;
  hubProcess: HubProcess;
  engines: Engines;
  emit: EmitEvent;
}

export interface Services {
  readonly handlers: Omit<Handlers, HostCalls>;
  /** Whether jobs or runs are at work or waiting. */
  isBusy(): boolean;
  /** Ids of the processes that work for this host. */
  processIds(): number[];
  /** What opening them had to tell people. */
  readonly notes: readonly string[];
  /** Ends all work in an order that loses nothing: runs first, with a checkpoint, then what they stood on. */
  close(): Promise<void>;
}

/** Builds every service on what it needs. The order is that of their dependence. */
export function composeServices({
  home,
  version,
  store,
  data,
  hubProcess,
  engines,
  emit,
}: ComposeDeps): Services {
  const jobs = createJobsService({ store, emit });
  const hub = createHubService({ home, process: hubProcess });
  // Models name runs and runs need models: the one is asked through the other once both are there.
  let training: Training | null = null;
  const models = createModelsService({
    store,
    home,
    emit,
    jobs: jobs.jobs,
    data,
    hub: hub.hub,
    trainedModel: async (ref) => (training ? training.trainedModel(ref) : null),
  });
  const datasets = createDatasetsService({
    store,
    home,
    emit,
    jobs: jobs.jobs,
    data,
    hub: hub.hub,
    models: models.models,
  });
  const trainingService = createTrainingService({
    store,
    home,
    emit,
    jobs: jobs.jobs,
    data,
    engines,
    models: models.models,
    datasets: datasets.datasets,
    version,
  });
  training = trainingService.training;
  const chat = createChatService({ store, emit, engines, models: models.models });
  const exports = createExportsService({ store, emit, jobs: jobs.jobs, models: models.models, engines });
  const system = createSystemService({
    home,
    version,
    sqliteVersion: store.sqliteVersion,
    data,
    engines,
    hubProcess,
    trainingProcesses: () => trainingService.training.processes(),
  });
  const storage = createStorageService({
    home,
    jobs: () => jobs.handlers.listJobs({}) as Job[],
    async trash(): Promise<Trashed[]> {
      const runs = await trainingService.handlers.listRuns({});
      const { sources, mixes } = await datasets.handlers.listTrash({});
      return [
        ...runs
          .filter(({ trashedAt }) => trashedAt !== null)
          .map(({ id, name, dir }) => ({
            name,
            dir,
            remove: async () => void (await trainingService.handlers.removeRun({ id })),
          })),
        ...sources.map(({ id, name }) => ({
          name,
          dir: join(home, 'sources', id),
          remove: async () => void (await datasets.handlers.removeSource({ id })),
        })),
        ...mixes.map(({ id, name, dir }) => ({
          name,
          dir,
          remove: async () => void (await datasets.handlers.removeMix({ id })),
        })),
      ];
    },
  });
  return {
    notes: [],
    handlers: {
      ...jobs.handlers,
      ...hub.handlers,
      ...models.handlers,
      ...datasets.handlers,
      ...trainingService.handlers,
      ...chat.handlers,
      ...exports.handlers,
      ...system.handlers,
      ...storage.handlers,
    },
    processIds: () =>
      [
        ...trainingService.training.processes().map(({ pid }) => pid),
        engines.inference.pid,
        data.pid,
        hubProcess.pid,
      ].filter((pid) => pid !== null),
    isBusy() {
      if (trainingService.training.busy) return true;
      const list = jobs.handlers.listJobs({});
      return list instanceof Promise || list.some((job) => !isEnded(job.state));
    },
    close: () =>
      closeInTurn(
        [trainingService, chat, exports, datasets, models, jobs, system].map((part) => () => part.close()),
      ),
  };
}

/** One that fails must not keep the others from saving what they have. */
export async function closeInTurn(closers: (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers) await close().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('; '));
}
