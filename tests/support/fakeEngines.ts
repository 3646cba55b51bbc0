import type {
  CheckpointInfo,
  CudaStatus,
  StepMetrics,
  TrainingPlan,
  TrainOptions,
  TrainResult,
} from '../../core/engine/AddonTypes.ts';
import type { Engines, InferenceEngine, TrainingEnd, TrainingListener } from '../../core/engine/client.ts';

/** One training engine that does what the test says. */
export interface FakeTraining {
  options: TrainOptions;
  listener: TrainingListener;
  /** What the host asked of it, in order. */
  asked: ('pause' | 'resume' | 'stop' | 'kill')[];
  /** Folder of the run. */
  runDir: string | undefined;
  /** Lines that the host said it has on disk. */
  recorded: number[];
  step(step: number, more?: Partial<StepMetrics>): void;
  end(end: TrainingEnd): void;
  finish(result?: Partial<TrainResult>): void;
  die(signal: string, stderrTail?: string[]): void;
}

export interface FakeEngines extends Engines {
  readonly trainings: FakeTraining[];
  /** What `listCheckpoints` says. */
  checkpoints: CheckpointInfo[];
  plan: TrainingPlan;
  /** What `cudaStatus` says. */
  cuda: CudaStatus;
  readonly inference: InferenceEngine;
  /** Overrides answers of the inference engine. */
  answers: Partial<InferenceEngine>;
  /** Resolves when the n-th training engine (from 0) was started. */
  started(n: number): Promise<FakeTraining>;
}

export function fakeStep(step: number, more: Partial<StepMetrics> = {}): StepMetrics {
  return {
    step,
    totalSteps: 20,
    epoch: step / 10,
    loss: 3 - step / 10,
    lossBySource: [
      { source: 'a', loss: 2 - step / 10, targetTokens: 8 },
      { source: 'b', loss: 4 - step / 10, targetTokens: 8 },
    ],
    balanceLoss: 0.02,
    balanceGradNorm: 0.1,
    lr: 2e-4,
    gradNorm: 1,
    skipped: false,
    tokens: 40,
    targetTokens: 16,
    paddingTokens: 4,
    stepMs: 100,
    tokensPerSecond: 400,
    memoryBytes: 1e8,
    expertShares: Float32Array.of(0.25, 0.75, 0.5, 0.5),
    rows: Int32Array.of(step, step + 1),
    rowLosses: Float32Array.of(1.5, 2.5),
    ...more,
  };
}

export function createFakeEngines(): FakeEngines {
  const trainings: FakeTraining[] = [];
  const waiting: { n: number; resolve: (training: FakeTraining) => void }[] = [];
  const unscripted = (name: string) => () =>
    Promise.reject(new Error(`the fake engine has no answer to ${name}`));
  const engines: FakeEngines = {
    trainings,
    checkpoints: [],
    answers: {},
    plan: {
      parameters: { base: 80448, lora: 100, adapters: 200, routers: 10, trainable: 310, total: 80758 },
      memory: [
        { item: 'base', bytes: 6000 },
        { item: 'activations', bytes: 4000 },
      ],
      totalMemoryBytes: 10_000,
      hostMemoryBytes: 0,
      checkpointBytes: 1000,
      rows: 40,
      steps: 20,
      warmupSteps: 1,
      probe: null,
    },
    cuda: {
      built: false,
      architectures: [],
      neededCuda: null,
      driverCuda: null,
      driverVersion: null,
      unavailable: 'this build holds no CUDA kernels',
      devices: [],
      cublaslt: { path: null, version: null, missing: 'not looked for' },
      nvml: { path: null, version: null, missing: 'not here' },
    },
    startTraining(options, listener, runDir) {
      const ended = Promise.withResolvers<TrainingEnd>();
      const training: FakeTraining = {
        options,
        listener,
        asked: [],
        runDir,
        recorded: [],
        step: (step, more) => listener.onSteps([fakeStep(step, more)]),
        end: (end) => ended.resolve(end),
        finish: (result) =>
          ended.resolve({
            kind: 'ended',
            result: {
              reason: 'finished',
              step: 20,
              totalSteps: 20,
              checkpoint: `${options.checkpointDir}/step-000020`,
              stepZeroDifference: 0,
              quantizationDifference: 0.125,
              ...result,
            },
          }),
        die: (signal, stderrTail = []) => ended.resolve({ kind: 'died', exitCode: null, signal, stderrTail }),
      };
      trainings.push(training);
      for (const { n, resolve } of waiting) if (n === trainings.length - 1) resolve(training);
      return {
        pid: 7000 + trainings.length,
        pause: () => void training.asked.push('pause'),
        resume: () => void training.asked.push('resume'),
        stop: () => void training.asked.push('stop'),
        kill(why) {
          training.asked.push('kill');
          training.die('SIGKILL', [why]);
        },
        recorded: (line) => void training.recorded.push(line),
        ended: ended.promise,
      };
    },
    started(n) {
      const there = trainings[n];
      if (there) return Promise.resolve(there);
      return new Promise((resolve) => waiting.push({ n, resolve }));
    },
    inference: new Proxy({} as InferenceEngine, {
      get(_, name: keyof InferenceEngine) {
        if (name in engines.answers) return engines.answers[name];
        if (name === 'pid') return 6999;
        if (name === 'plan') return () => Promise.resolve(engines.plan);
        if (name === 'probe') return () => Promise.resolve({ stepMs: 500, tokensPerSecond: 1000 });
        if (name === 'listCheckpoints') return () => Promise.resolve(engines.checkpoints);
        if (name === 'devices')
          return () =>
            Promise.resolve([
              {
                device: 'cpu',
                kind: 'cpu',
                name: 'a processor',
                units: 2,
                totalMemoryBytes: 8e9,
                freeMemoryBytes: 4e9,
              },
            ]);
        if (name === 'cudaStatus') return () => Promise.resolve(engines.cuda);
        if (name === 'onnxProviders') return () => Promise.resolve([{ name: 'cpu', missing: null }]);
        if (name === 'buildInfo')
          return () =>
            Promise.resolve({
              version: '1',
              buildId: 'b1',
              compiler: 'gcc',
              cuda: false,
              simd: { built: ['avx2'], used: 'avx2' },
            });
        return unscripted(name);
      },
    }),
  };
  return engines;
}
