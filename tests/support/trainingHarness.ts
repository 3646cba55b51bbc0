import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import type { EventName, EventPayload } from '../../core/shared/contract/contract.ts';
import { recipeSchema } from '../../core/shared/dataset/recipe.ts';
import { runConfigSchema, type RunConfigInput } from '../../core/shared/run/runConfig.ts';
import type { Run } from '../../core/shared/run/run.ts';
import type { FoundMix } from '../../core/services/datasets/index.ts';
import { createJobsService, type JobsService } from '../../core/services/jobs/index.ts';
import type { Models } from '../../core/services/models/index.ts';
import {
  createTrainingService,
  type TrainingDeps,
  type TrainingService,
} from '../../core/services/training/index.ts';
import { openStore, type Store } from '../../core/store/openStore.ts';
import { createFakeData, tinyModelSummary, tinyTokenizer, type FakeData } from './fakeData.ts';
import { createFakeEngines, type FakeEngines } from './fakeEngines.ts';

type Told = { [N in EventName]: { name: N; payload: EventPayload<N> } }[EventName];

/** A training service over a real database in a folder of its own, with fakes of all that computes. */
export interface TrainingHarness {
  home: string;
  store: Store;
  engines: FakeEngines;
  data: FakeData;
  jobs: JobsService;
  service: TrainingService;
  told: Told[];
  clock: { now(): number; time: number };
  mix: FoundMix;
  model: { identity: string; tokenizerHash: string };
  memory: { availableBytes: number; totalBytes: number };
  disk: { freeBytes: number };
  /** How long an engine that was asked to stop may say nothing. */
  patience: { ms: number };
  warnings: string[];
  start(more?: Partial<RunConfigInput>, hold?: boolean): Promise<Run>;
  get(id: string): Run;
  /** Resolves when the run's state is one of these. */
  reach(id: string, ...states: Run['state'][]): Promise<Run>;
  /** The host ends without a word (its engines with it) and another opens the same home. */
  killHost(options?: { loseDatabase?: boolean }): Promise<void>;
  dispose(): Promise<void>;
}

export async function createTrainingHarness(): Promise<TrainingHarness> {
  const home = mkdtempSync(join(tmpdir(), 'training-'));
  mkdirSync(join(home, 'tiny'));
  const told: Told[] = [];
  const clock = {
    time: 1_000_000,
    now() {
      return this.time;
    },
  };
  const mixDir = join(home, 'mix');
  const trainShard = join(mixDir, 'shards/abc/train.safetensors');
  const mix: FoundMix = {
    mix: {
      id: 'mix-1',
      name: 'blend',
      dir: mixDir,
      rows: 40,
      validationRows: 0,
      tokens: 800,
      targetTokens: 400,
      sources: [],
      model: 'tiny',
      template: 'camelidae',
      seqLen: 256,
      contentHash: 'content',
      recipe: recipeSchema.parse({ name: 'blend', sources: [{ name: 'a', source: 'a' }] }),
      builtAt: 1,
    },
    tokenizerHash: 'tokenizer',
    trainShard,
    validationShard: null,
    files: { 'shards/abc/train.safetensors': 'shard' },
  };
  const model = { identity: 'weights', tokenizerHash: 'tokenizer' };
  const models: Models = {
    resolve: (ref) =>
      ref === 'tiny'
        ? Promise.resolve({
            name: 'tiny',
            model: null,
            dir: join(home, 'tiny'),
            tokenizerPath: join(home, 'tiny/tokenizer.json'),
            ...tinyTokenizer,
            trained: null,
          })
        : Promise.reject(new CaravanError('not_found', `no model ${ref}`)),
    identityOf: () => Promise.resolve(model.identity),
    tokenizerHash: () => Promise.resolve(model.tokenizerHash),
    inspect: (dir) =>
      Promise.resolve({
        ...tinyModelSummary,
        name: 'tiny',
        dir,
        hasChatTemplate: false,
        bosToken: null,
        eosToken: null,
        identity: null,
      }),
  };
  const engines = createFakeEngines();
  const data = createFakeData({ hashFile: () => ({ hash: 'shard' }) });
  const harness = {
    home,
    engines,
    data,
    told,
    clock,
    mix,
    model,
    memory: { availableBytes: 1e9, totalBytes: 2e9 },
    disk: { freeBytes: 1e9 },
    patience: { ms: 60_000 },
    warnings: [] as string[],
    async start(more = {}, hold = false) {
      return harness.service.handlers.startRun({
        hold,
        config: runConfigSchema.parse({ model: 'tiny', mix: 'blend', seqLen: 256, numExperts: 2, ...more }),
      });
    },
    get: (id: string) => harness.service.handlers.getRun({ id }) as Run,
    async reach(id: string, ...states: Run['state'][]) {
      const deadline = Date.now() + 5000;
      for (;;) {
        const run = harness.get(id);
        if (states.includes(run.state)) return run;
        if (Date.now() > deadline) throw new Error(`the run is ${run.state}, not ${states.join(' or ')}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    },
    async killHost({ loseDatabase = false } = {}) {
      await harness.store.close();
      if (loseDatabase) rmSync(join(home, 'caravan.db'));
      await openHost();
    },
    async dispose() {
      const closing = harness.service.close();
      for (const training of engines.trainings) training.die('SIGKILL');
      await closing;
      await harness.store.close();
      rmSync(home, { recursive: true, force: true });
    },
  } as TrainingHarness;

  async function openHost(): Promise<void> {
    harness.store = await openStore({ file: join(home, 'caravan.db'), reserveBytes: 1000 });
    const emit: TrainingDeps['emit'] = (name, payload) => void told.push({ name, payload } as Told);
    harness.jobs = createJobsService({ store: harness.store, emit, clock });
    harness.service = createTrainingService({
      store: harness.store,
      home,
      emit,
      jobs: harness.jobs.jobs,
      data,
      engines,
      models,
      datasets: {
        findMix: (ref) =>
          ref === 'blend' || ref === mixDir
            ? Promise.resolve(mix)
            : Promise.reject(new CaravanError('not_found', `no mix ${ref}`)),
      },
      version: '0.1.0',
      clock,
      memory: () => harness.memory,
      freeDiskBytes: () => Promise.resolve(harness.disk.freeBytes),
      stopPatienceMs: () => harness.patience.ms,
      warn: (message) => void harness.warnings.push(message),
    });
    await harness.service.training.recovered;
  }
  await openHost();
  return harness;
}
