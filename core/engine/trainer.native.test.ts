import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import { tinyTraining, writeTinyModel, writeTinyShard } from '../../tests/support/tinyModel.ts';
import type {
  Addon,
  AddonTrainer,
  CheckpointInfo,
  EvaluationMetrics,
  SessionOpened,
  StepMetrics,
  TrainListener,
  TrainOptions,
  TrainPhase,
} from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';

const bad = (field: string) =>
  expect.objectContaining({ code: 'bad_option', message: expect.stringContaining(field) as string });
const wrongState = expect.objectContaining({ code: 'wrong_state' }) as Error;

interface Record extends TrainListener {
  opened: (SessionOpened & { atStep: number })[];
  phases: TrainPhase[];
  loaded: [done: number, total: number];
  steps: StepMetrics[];
  evaluations: EvaluationMetrics[];
  checkpoints: CheckpointInfo[];
}

function recorder(onStep: (step: StepMetrics) => void = () => {}): Record {
  const record: Record = {
    opened: [],
    phases: [],
    loaded: [0, 0],
    steps: [],
    evaluations: [],
    checkpoints: [],
    onPhase: (phase) => record.phases.push(phase),
    onLoading: (done, total) => void (record.loaded = [done, total]),
    onOpened: (opened) => record.opened.push({ ...opened, atStep: record.steps.length }),
    onStep: (step) => {
      record.steps.push(step);
      onStep(step);
    },
    onEvaluation: (evaluation) => record.evaluations.push(evaluation),
    onCheckpoint: (checkpoint) => record.checkpoints.push(checkpoint),
    onLog: () => {},
  };
  return record;
}

describe.runIf(needs('addon'))('the addon trains', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-trainer-'));
  let addon: Addon;
  let modelDir: string;
  let trainShard: string;
  let runs = 0;
  const options = (change: Partial<TrainOptions> = {}): TrainOptions => ({
    ...tinyTraining({ modelDir, trainShard, checkpointDir: join(folder, `run-${++runs}`) }),
    ...change,
  });
  beforeAll(async () => {
    addon = loadAddon();
    modelDir = writeTinyModel(join(folder, 'model'));
    trainShard = await writeTinyShard(addon, join(folder, 'train.safetensors'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('every step, evaluation, phase and checkpoint of a run, in order', async () => {
    const record = recorder();
    const asked = options({ validationShard: trainShard, saveSteps: 4 });
    const trainer = addon.createTrainer(asked, record);
    expect(trainer.state).toBe('idle');
    const result = await trainer.start();
    expect(result).toMatchObject({
      reason: 'finished',
      step: 6,
      totalSteps: 6,
      stepZeroDifference: 0,
      quantizationDifference: null,
    });
    expect(trainer.state).toBe('ended');
    expect(record.steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    const rows = record.steps.flatMap((step) => [...step.rows]);
    expect(rows.sort((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, row) => row));
    expect(record.steps[0]!.rows).toEqual(addon.rowOrder(asked.seed, 0, 24).slice(0, 4));
    for (const step of record.steps) {
      expect(step.expertShares).toHaveLength(4);
      expect(step.rowLosses).toHaveLength(4);
      const counted = step.lossBySource.reduce((sum, { targetTokens }) => sum + targetTokens, 0);
      expect(counted).toBe(step.targetTokens);
      for (const { source } of step.lossBySource) expect(['left', 'right']).toContain(source);
      expect(step.skipped).toBe(false);
    }
    expect(record.evaluations.map(({ step }) => step)).toEqual([0, 6]);
    expect(record.evaluations[1]!.loss).toBeLessThan(record.evaluations[0]!.loss);
    expect(record.checkpoints.map(({ step }) => step)).toEqual([4, 6]);
    expect(record.phases[0]).toBe('loading');
    expect(record.phases.at(-1)).toBe('finished');
    expect(record.loaded[0]).toBe(record.loaded[1]);
    expect(record.loaded[1]).toBeGreaterThan(10_000);
    expect(result.checkpoint).toBe(record.checkpoints[1]!.path);
    const listed = await addon.listCheckpoints(asked.checkpointDir);
    expect(listed.map(({ step, problem }) => [step, problem])).toEqual([
      [6, null],
      [4, null],
    ]);
    trainer.dispose();
  });

  test('resumes a stopped run as if it had not been stopped', async () => {
    const whole = recorder();
    await addon.createTrainer(options({ epochs: 20 }), whole).start();

    const asked = options({ epochs: 20 });
    const first = recorder((step) => {
      if (step.step === 2) trainer.stop();
    });
    const trainer: AddonTrainer = addon.createTrainer(asked, first);
    const stopped = await trainer.start();
    expect(stopped.reason).toBe('stopped');
    expect(stopped.step).toBeGreaterThanOrEqual(2);
    expect(stopped.step).toBeLessThan(120);
    expect(first.steps).toHaveLength(stopped.step);

    const second = recorder();
    const result = await addon.createTrainer({ ...asked, resumeFrom: stopped.checkpoint! }, second).start();
    expect(result).toMatchObject({ reason: 'finished', step: 120 });
    const numbers = (steps: StepMetrics[]) => steps.map(({ step, loss, gradNorm }) => [step, loss, gradNorm]);
    expect(numbers([...first.steps, ...second.steps])).toEqual(numbers(whole.steps));
  });

  test('pauses between micro-batches and goes on', async () => {
    let pausedAt = 0;
    const record = recorder((step) => {
      if (step.step !== 2) return;
      trainer.pause();
      expect(trainer.state).toBe('paused');
      setTimeout(() => {
        pausedAt = record.steps.length;
        trainer.resume();
      }, 50);
    });
    const trainer: AddonTrainer = addon.createTrainer(options({ epochs: 60 }), record);
    const result = await trainer.start();
    expect(result.reason).toBe('finished');
    expect(pausedAt).toBeLessThan(result.step);
    expect(record.phases).toContain('paused');
  });

  test('stops without a checkpoint when told to discard', async () => {
    const asked = options({ epochs: 1000 });
    const record = recorder((step) => {
      if (step.step === 1) trainer.stop({ discard: true });
    });
    const trainer: AddonTrainer = addon.createTrainer(asked, record);
    expect(await trainer.start()).toMatchObject({ reason: 'stopped', checkpoint: null });
    expect(readdirSync(asked.checkpointDir)).toEqual([]);
  });

  test('allows each method in its states alone', async () => {
    const idle = addon.createTrainer(options(), recorder());
    for (const method of ['pause', 'resume', 'stop'] as const)
      expect(() => idle[method]()).toThrow(wrongState);
    idle.dispose();
    idle.dispose();
    expect(idle.state).toBe('disposed');
    await expect(idle.start()).rejects.toEqual(wrongState);
    for (const method of ['pause', 'resume', 'stop'] as const)
      expect(() => idle[method]()).toThrow(wrongState);

    const ended = addon.createTrainer(options(), recorder());
    const run = ended.start();
    await expect(ended.start()).rejects.toEqual(wrongState);
    await run;
    expect(() => ended.pause()).toThrow(wrongState);
    expect(() => ended.resume()).toThrow(wrongState);
    ended.stop();
    await expect(ended.start()).rejects.toEqual(wrongState);

    const failed = addon.createTrainer(options({ modelDir: join(folder, 'absent') }), recorder());
    await expect(failed.start()).rejects.toMatchObject({ code: 'bad_file' });
    expect(failed.state).toBe('failed');
    expect(() => failed.pause()).toThrow(wrongState);
    failed.stop();
    expect(() => failed.stop({ discards: true } as never)).toThrow(bad('discards'));
    failed.dispose();
  });

  test('a run that is disposed ends at once, and its promise says why', async () => {
    const record = recorder((step) => {
      if (step.step === 1) trainer.dispose();
    });
    const trainer: AddonTrainer = addon.createTrainer(options({ epochs: 100_000 }), record);
    await expect(trainer.start()).rejects.toMatchObject({ code: 'cancelled' });
    expect(trainer.state).toBe('disposed');
    trainer.dispose();
  });

  test('loses no step to a JavaScript thread that is busy', async () => {
    const record = recorder((step) => {
      if (step.step % 50 !== 1) return;
      const until = performance.now() + 40;
      while (performance.now() < until);
    });
    const result = await addon.createTrainer(options({ epochs: 50, batchSize: 8 }), record).start();
    expect(record.steps.map(({ step }) => step)).toEqual(
      Array.from({ length: result.totalSteps }, (_, index) => index + 1),
    );
  });

  test('names every option that is missing, unknown or of the wrong type', () => {
    const right = options();
    const optional = ['validationShard', 'resumeFrom', 'maxSteps'];
    const fields = Object.keys(right);
    expect(fields).toHaveLength(39);
    for (const field of fields) {
      const { [field as keyof TrainOptions]: value, ...without } = right;
      expect(() => addon.createTrainer(without as TrainOptions, recorder()), field).toThrow(
        bad(`${field} is missing`),
      );
      const wrong = typeof value === 'string' ? 5 : 'five';
      expect(() => addon.createTrainer({ ...right, [field]: wrong }, recorder()), field).toThrow(bad(field));
    }
    for (const field of optional)
      expect(() => addon.createTrainer({ ...right, [field]: true }, recorder()), field).toThrow(bad(field));
    expect(() => addon.createTrainer({ ...right, batchsize: 4 } as TrainOptions, recorder())).toThrow(
      bad('batchsize'),
    );
    const values: [keyof TrainOptions, unknown][] = [
      ['method', 'base'],
      ['baseDtype', 'int8'],
      ['computeDtype', 'f16'],
      ['schedule', 'step'],
      ['optimizer', 'sgd'],
      ['device', 'tpu'],
      ['lr', Number.NaN],
      ['lr', 1e300],
      ['batchSize', 0],
      ['batchSize', 2.5],
      ['seed', 2 ** 32],
      ['loraDropout', 1],
      ['topK', 3],
      ['identity', { model: 4 }],
    ];
    for (const [field, value] of values)
      expect(() => addon.createTrainer({ ...right, [field]: value }, recorder()), field).toThrow(bad(field));
    const { onStep: _, ...incomplete } = recorder();
    expect(() => addon.createTrainer(right, incomplete as unknown as TrainListener)).toThrow(bad('onStep'));
    expect(() => addon.createTrainer(undefined as never, recorder())).toThrow(bad('options'));
  });

  test('plans and probes without a run', async () => {
    const asked = options({ warmupRatio: 0.5 });
    const plan = await addon.planTraining(asked);
    expect(plan).toMatchObject({ rows: 24, steps: 6, warmupSteps: 3, probe: null });
    const { base, lora, adapters, routers, trainable, total } = plan.parameters;
    expect(routers).toBe(2 * 2 * 32);
    expect(adapters).toBe(2 * 2 * 2 * 8 * 32);
    expect(trainable).toBe(lora + adapters + routers);
    expect(total).toBe(base + trainable);
    expect(plan.memory.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(plan.totalMemoryBytes);
    const probe = await addon.probeTraining(asked);
    expect(probe.stepMs).toBeGreaterThan(0);
    expect(probe.tokensPerSecond).toBeGreaterThan(0);
    await expect(addon.planTraining({ ...asked, seqLen: 9 })).rejects.toEqual(bad('seqLen'));
    await expect(addon.planTraining({ ...asked, lr: undefined } as never)).rejects.toEqual(
      bad('lr is missing'),
    );
  });

  test('knows no checkpoints where there is no folder', async () => {
    expect(await addon.listCheckpoints(join(folder, 'nowhere'))).toEqual([]);
    await expect(addon.listCheckpoints(undefined as never)).rejects.toEqual(bad('checkpointDir'));
  });
});
