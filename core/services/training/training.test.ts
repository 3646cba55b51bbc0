import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createTrainingHarness, type TrainingHarness } from '../../../tests/support/trainingHarness.ts';
import { CaravanError, type ErrorCode } from '../../shared/contract/errors.ts';
import {
  planSchema,
  runSchema,
  runStates,
  stepSchema,
  type Run,
  type RunState,
} from '../../shared/run/run.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { isAllowed, type RunAction } from '../../shared/run/transitions.ts';

let h: TrainingHarness;
beforeEach(async () => {
  h = await createTrainingHarness();
});
afterEach(() => h.dispose());

const metricsOf = (run: Run) =>
  readFileSync(join(run.dir, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const logOf = (run: Run) => readFileSync(join(run.dir, 'log.txt'), 'utf8');
const checkpoint = (run: Run, step: number, problem: string | null = null) => ({
  step,
  path: join(run.dir, `checkpoints/step-${String(step).padStart(6, '0')}`),
  bytes: 10,
  problem,
});

describe('a run from start to end', () => {
  test('keeps what was asked, what it was resolved to, and every step', async () => {
    const run = await h.start({ name: 'first' });
    expect(runSchema.parse(run)).toMatchObject({ name: 'first', state: 'queued', totalSteps: 20 });
    expect(parse(readFileSync(join(run.dir, 'run.yaml'), 'utf8'))).toMatchObject({
      model: 'tiny',
      mix: 'blend',
    });
    const engine = await h.engines.started(0);
    expect(engine.options).toMatchObject({
      modelDir: join(h.home, 'tiny'),
      trainShard: h.mix.trainShard,
      checkpointDir: join(run.dir, 'checkpoints'),
      identity: { model: 'weights', mix: 'content' },
      numExperts: 2,
    });
    expect(engine.options).not.toHaveProperty('resumeFrom');
    expect(engine.options).not.toHaveProperty('mix');
    const lock = JSON.parse(readFileSync(join(run.dir, 'run.lock.json'), 'utf8')) as object;
    expect(lock).toMatchObject({
      schema: 'caravan-run-1',
      seed: 0,
      versions: { caravan: '0.1.0', engine: 'b1', node: process.version },
      model: { identity: 'weights', tokenizerHash: 'tokenizer' },
      mix: { contentHash: 'content', template: 'camelidae' },
    });
    engine.listener.onPhase('training');
    engine.listener.onEvaluation({
      step: 0,
      loss: 4,
      bySource: [{ source: 'a', loss: 4, targetTokens: 8, rows: 2 }],
      evaluationMs: 5,
    });
    for (let step = 1; step <= 6; step++) {
      h.clock.time += 100;
      engine.step(step);
    }
    expect(h.get(run.id)).toMatchObject({ state: 'running', phase: 'training', step: 6, loss: 2.4 });
    expect(h.get(run.id).etaMs).toBeCloseTo(1400, 5);
    engine.listener.onCheckpoint(checkpoint(run, 6));
    engine.listener.onEvaluation({ step: 20, loss: 1, bySource: [], evaluationMs: 5 });
    engine.finish();
    const done = await h.reach(run.id, 'completed');
    expect(runSchema.parse(done)).toMatchObject({
      step: 20,
      elapsedMs: 600,
      etaMs: null,
      phase: null,
      stepZeroDifference: 0,
      quantizationDifference: 0.125,
      firstEvaluation: { step: 0, loss: 4 },
      lastEvaluation: { step: 20, loss: 1 },
      lastCheckpoint: join(run.dir, 'checkpoints/step-000020'),
      error: null,
      attempt: 0,
    });
    expect(metricsOf(run).map(({ type, step }) => `${String(type)} ${String(step ?? '')}`)).toEqual([
      'evaluation 0',
      ...[1, 2, 3, 4, 5, 6].map((step) => `step ${step}`),
      'evaluation 20',
      'state ',
    ]);
    expect(logOf(run)).toContain('completed at step 20');
    const steps = await h.service.handlers.readSteps({ id: run.id, fromStep: 0, limit: 500 });
    expect(steps.map((step) => stepSchema.parse(step).step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(steps[0]).toMatchObject({
      loss: 2.9,
      lossBySource: [{ source: 'a', loss: 1.9 }, { source: 'b' }],
      expertShares: [0.25, 0.75, 0.5, 0.5],
    });
    const stepped = h.told
      .filter((event) => event.name === 'runStepped')
      .flatMap(({ payload }) => payload.steps);
    expect(stepped).toEqual(steps);
    expect(
      (await h.jobs.handlers.listJobs({})).map(({ kind, state, subjectId }) => [kind, state, subjectId]),
    ).toEqual([['train', 'completed', run.id]]);
  });

  test('keeps its mix and its model from being removed until it has ended', async () => {
    const run = await h.start({ name: 'first' });
    const check = () => h.jobs.jobs.checkUnneeded(`mix ${h.mix.mix.dir}`, "mix 'blend'");
    expect(check).toThrow("mix 'blend' is in use by run 'first'");
    expect(() => h.jobs.jobs.checkUnneeded(`model ${join(h.home, 'tiny')}`, 'it')).toThrow("run 'first'");
    (await h.engines.started(0)).finish();
    await h.reach(run.id, 'completed');
    await expect
      .poll(() => (h.jobs.handlers.listJobs({}) as { state: string }[])[0]!.state)
      .toBe('completed');
    expect(check).not.toThrow();
  });

  test('writes many steps in few transactions', async () => {
    const run = await h.start();
    const engine = await h.engines.started(0);
    let commits = 0;
    const { transaction } = h.store;
    h.store.transaction = (work) => {
      commits++;
      return transaction.call(h.store, work) as never;
    };
    for (let step = 1; step <= 300; step++) engine.step(step);
    engine.finish({ step: 300 });
    await h.reach(run.id, 'completed');
    expect(commits).toBeLessThan(6);
    expect(h.store.get('SELECT count(*) AS n FROM steps')).toEqual({ n: 300 });
  });

  test('a loss that is not finite is kept as null and named in the log with its rows', async () => {
    const run = await h.start();
    const engine = await h.engines.started(0);
    engine.step(1, {
      loss: NaN,
      gradNorm: Infinity,
      skipped: true,
      lossBySource: [{ source: 'a', loss: NaN, targetTokens: 3 }],
      rows: Int32Array.of(7, 9),
      rowLosses: Float32Array.of(NaN, 2),
    });
    engine.finish({ step: 1 });
    await h.reach(run.id, 'completed');
    const [step] = await h.service.handlers.readSteps({ id: run.id, fromStep: 0, limit: 1 });
    expect(step).toMatchObject({
      loss: null,
      gradNorm: null,
      skipped: true,
      lossBySource: [{ source: 'a', loss: null }],
    });
    expect(logOf(run)).toMatch(/step 1 was skipped.*rows 7, 9/);
    const [series] = await h.service.handlers.readSeries({ id: run.id, metrics: ['loss'], buckets: 10 });
    expect(series).toEqual({
      metric: 'loss',
      steps: [1],
      values: [null],
      min: [null],
      max: [null],
      nonFinite: [1],
    });
  });
});

describe('each call in each state', () => {
  const calls: Record<RunAction, (id: string) => unknown> = {
    pause: (id) => h.service.handlers.pauseRun({ id }),
    continue: (id) => h.service.handlers.continueRun({ id }),
    stop: (id) => h.service.handlers.stopRun({ id }),
    resume: (id) => h.service.handlers.resumeRun({ id }),
    remove: (id) => h.service.handlers.removeRun({ id }),
  };
  const actions = Object.keys(calls) as RunAction[];

  async function bring(state: RunState): Promise<string> {
    if (state === 'queued') await h.start();
    const { id } = await h.start();
    if (state === 'queued') return id;
    const engine = await h.engines.started(0);
    if (state === 'paused') await calls.pause(id);
    if (state === 'stopping') await calls.stop(id);
    if (state === 'completed') engine.finish();
    if (state === 'stopped') {
      await calls.stop(id);
      engine.finish({ reason: 'stopped' });
    }
    if (state === 'failed')
      engine.end({ kind: 'failed', error: new CaravanError('diverged', 'three in a row') });
    if (state === 'interrupted') engine.die('SIGKILL');
    await h.reach(id, state);
    return id;
  }

  test.each(runStates.flatMap((state) => actions.map((action) => [state, action] as const)))(
    '%s: %s',
    async (state, action) => {
      const id = await bring(state);
      const attempt = async () => calls[action](id);
      if (isAllowed(state, action)) await attempt();
      else {
        await expect(attempt()).rejects.toMatchObject({ code: 'wrong_state' });
        expect(h.get(id).state).toBe(state);
      }
    },
  );
});

test('pauses and goes on, without counting the pause', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  h.clock.time += 1000;
  await h.service.handlers.pauseRun({ id: run.id });
  h.clock.time += 50_000;
  await h.service.handlers.continueRun({ id: run.id });
  h.clock.time += 500;
  engine.finish();
  expect((await h.reach(run.id, 'completed')).elapsedMs).toBe(1500);
  expect(engine.asked).toEqual(['pause', 'resume']);
});

test('stopping waits for the checkpoint and ends as stopped, its job as cancelled', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  engine.step(3);
  expect(await h.service.handlers.stopRun({ id: run.id })).toMatchObject({ state: 'stopping' });
  expect(engine.asked).toEqual(['stop']);
  engine.finish({ reason: 'stopped', step: 3, checkpoint: checkpoint(run, 3).path });
  expect(await h.reach(run.id, 'stopped')).toMatchObject({
    step: 3,
    lastCheckpoint: checkpoint(run, 3).path,
    error: null,
  });
  await expect
    .poll(() => h.jobs.handlers.listJobs({}))
    .toMatchObject([{ state: 'cancelled', subjectId: run.id }]);
});

test('the job centre pauses and cancels a run too', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  const [job] = await h.jobs.handlers.listJobs({});
  await h.jobs.handlers.pauseJob({ id: job!.id });
  expect(h.get(run.id).state).toBe('paused');
  await h.jobs.handlers.resumeJob({ id: job!.id });
  expect(h.get(run.id).state).toBe('running');
  await h.jobs.handlers.cancelJob({ id: job!.id });
  expect(h.get(run.id).state).toBe('stopping');
  expect(engine.asked).toEqual(['pause', 'resume', 'stop']);
  engine.finish({ reason: 'stopped' });
  await h.reach(run.id, 'stopped');
});

test('of one device set trains one run at a time', async () => {
  const [first, second] = [await h.start({ name: 'twin' }), await h.start({ name: 'twin' })];
  expect([first.name, second.name]).toEqual(['twin', 'twin-2']);
  const engine = await h.engines.started(0);
  expect(h.get(second.id).state).toBe('queued');
  expect(h.engines.trainings).toHaveLength(1);
  engine.finish();
  await h.engines.started(1);
  expect(h.get(first.id).state).toBe('completed');
  expect(h.get(second.id).state).toBe('running');
  const third = await h.start();
  await h.service.handlers.stopRun({ id: third.id });
  expect(h.get(third.id)).toMatchObject({ state: 'stopped', error: null });
  expect(h.engines.trainings).toHaveLength(2);
});

describe('an engine that dies', () => {
  test('leaves the run interrupted with a crash card, everything kept, and its steps in the files', async () => {
    const run = await h.start();
    const engine = await h.engines.started(0);
    engine.step(1);
    engine.listener.onCheckpoint(checkpoint(run, 1));
    engine.step(2);
    engine.die('SIGKILL', ['loading', 'CUDA error: nothing', 'bye']);
    const dead = await h.reach(run.id, 'interrupted');
    expect(dead).toMatchObject({
      step: 2,
      error: { code: 'engine_died', message: expect.stringContaining('SIGKILL') as string },
      crash: {
        signal: 'SIGKILL',
        exitCode: null,
        line: 'CUDA error: nothing',
        stderrTail: ['loading', 'CUDA error: nothing', 'bye'],
        lastStep: 2,
        lastCheckpoint: checkpoint(run, 1).path,
        memoryBytes: 1e8,
      },
    });
    expect(metricsOf(run).map(({ type }) => type)).toEqual(['step', 'step', 'state']);
    await expect
      .poll(() => h.jobs.handlers.listJobs({}))
      .toMatchObject([{ state: 'interrupted', error: { code: 'engine_died' } }]);
  });

  test('and one that was asked to stop and hangs is killed once it says nothing more', async () => {
    h.patience.ms = 400;
    const run = await h.start();
    const engine = await h.engines.started(0);
    engine.step(1);
    engine.listener.onCheckpoint(checkpoint(run, 1));
    await h.service.handlers.stopRun({ id: run.id });
    for (let line = 1; line <= 4; line++) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      engine.listener.onLine!(line);
    }
    expect(engine.asked).toEqual(['stop']);
    expect(h.get(run.id).state).toBe('stopping');
    expect(await h.reach(run.id, 'interrupted')).toMatchObject({
      error: {
        code: 'engine_died',
        message: 'the engine was asked to stop, said nothing for 0.4 s, and was killed',
      },
      crash: { advice: expect.stringMatching(/hung.*resume the run/) as string },
    });
    expect(engine.asked).toEqual(['stop', 'kill']);
    expect(logOf(run)).toContain('was asked to stop');
    expect(await h.service.handlers.resumeRun({ id: run.id })).toMatchObject({ state: 'queued' });
  });

  test.each<[ErrorCode]>([['diverged'], ['disk_full'], ['out_of_memory'], ['bad_file']])(
    'one that fails with %s leaves it failed',
    async (code) => {
      const run = await h.start();
      (await h.engines.started(0)).end({
        kind: 'failed',
        error: new CaravanError(code, 'why', { mend: 'do' }),
      });
      expect(await h.reach(run.id, 'failed')).toMatchObject({
        error: { code, message: 'why', mend: 'do' },
        crash:
          code === 'out_of_memory'
            ? {
                line: 'out of memory: why',
                exitCode: null,
                advice: expect.stringContaining('lower') as string,
              }
            : null,
      });
    },
  );
});

describe('resuming', () => {
  async function interruptedAt(step: number): Promise<Run> {
    const run = await h.start();
    const engine = await h.engines.started(0);
    for (let i = 1; i <= step; i++) engine.step(i, { loss: i });
    engine.listener.onEvaluation({ step: 4, loss: 4, bySource: [], evaluationMs: 1 });
    engine.listener.onEvaluation({ step, loss: step, bySource: [], evaluationMs: 1 });
    engine.die('SIGKILL');
    return h.reach(run.id, 'interrupted');
  }

  test('goes on from the newest checkpoint that verifies, and the points past it are superseded', async () => {
    const run = await interruptedAt(10);
    h.engines.checkpoints = [
      checkpoint(run, 8, 'optimizer.safetensors has another hash'),
      checkpoint(run, 6),
    ];
    expect(await h.service.handlers.resumeRun({ id: run.id })).toMatchObject({
      state: 'queued',
      error: null,
      crash: null,
    });
    const engine = await h.engines.started(1);
    expect(engine.options.resumeFrom).toBe(checkpoint(run, 6).path);
    expect(h.get(run.id)).toMatchObject({
      state: 'running',
      step: 6,
      attempt: 1,
      loss: 6,
      lastEvaluation: { step: 4 },
    });
    expect(logOf(run)).toContain('has another hash');
    engine.step(7, { loss: 70 });
    engine.step(8, { loss: 80 });
    engine.finish({ step: 8 });
    await h.reach(run.id, 'completed');
    const [series] = await h.service.handlers.readSeries({ id: run.id, metrics: ['loss'], buckets: 100 });
    expect(series!.values).toEqual([1, 2, 3, 4, 5, 6, 70, 80]);
    expect(metricsOf(run).filter(({ type }) => type === 'step')).toHaveLength(12);
    expect(metricsOf(run).find(({ type }) => type === 'resume')).toMatchObject({ attempt: 1, step: 6 });
    expect(await h.service.handlers.readEvaluations({ id: run.id })).toMatchObject([{ step: 4 }]);
  });

  test('from a checkpoint past the last step that was told says what is missing', async () => {
    const run = await interruptedAt(3);
    h.engines.checkpoints = [checkpoint(run, 5)];
    await h.service.handlers.resumeRun({ id: run.id });
    expect((await h.engines.started(1)).options.resumeFrom).toBe(checkpoint(run, 5).path);
    expect(h.get(run.id)).toMatchObject({ step: 5, loss: 3 });
    h.engines.trainings[1]!.finish();
    await h.reach(run.id, 'completed');
    expect(logOf(run)).toContain('steps 4 to 5 are in the checkpoint but not in the metrics');
  });

  test('with another build of the engine says that it is not exact', async () => {
    const run = await interruptedAt(3);
    h.engines.checkpoints = [checkpoint(run, 2)];
    h.engines.answers.buildInfo = () =>
      Promise.resolve({
        version: '1',
        buildId: 'b2',
        compiler: 'gcc',
        cuda: false,
        simd: { built: [], used: '' },
      });
    await h.service.handlers.resumeRun({ id: run.id });
    (await h.engines.started(1)).finish();
    await h.reach(run.id, 'completed');
    expect(logOf(run)).toContain('not exact: the run began with engine build b1, this is b2');
  });

  test('without a checkpoint starts over', async () => {
    const run = await interruptedAt(3);
    await h.service.handlers.resumeRun({ id: run.id });
    const engine = await h.engines.started(1);
    expect(engine.options).not.toHaveProperty('resumeFrom');
    expect(h.get(run.id)).toMatchObject({ step: 0, attempt: 1, loss: null, firstEvaluation: null });
    expect(h.store.get('SELECT count(*) AS n FROM steps')).toEqual({ n: 0 });
  });

  test('refuses another mix under the same folder', async () => {
    const run = await interruptedAt(3);
    h.mix.mix.contentHash = 'other';
    await expect((async () => h.service.handlers.resumeRun({ id: run.id }))()).rejects.toMatchObject({
      code: 'mix_mismatch',
    });
    expect(h.get(run.id).state).toBe('interrupted');
  });

  test.each([
    [
      'a shard that was changed',
      () => (h.data.answers.hashFile = () => ({ hash: 'tampered' })),
      'mix_mismatch',
    ],
    ['other weights under the same folder', () => (h.model.identity = 'others'), 'model_mismatch'],
    ['less memory than it needs', () => (h.memory.availableBytes = 100), 'does_not_fit'],
    ['no room for a checkpoint', () => (h.disk.freeBytes = 10), 'disk_full'],
  ])('fails on %s before an engine is started, and stays resumable', async (_, spoil, code) => {
    const run = await interruptedAt(3);
    const before = metricsOf(run);
    spoil();
    await h.service.handlers.resumeRun({ id: run.id });
    expect(await h.reach(run.id, 'failed')).toMatchObject({ error: { code } });
    expect(h.engines.trainings).toHaveLength(1);
    expect(metricsOf(run)).toEqual(before);
    expect(h.store.get('SELECT count(*) AS n FROM steps')).toEqual({ n: 3 });
  });

  test('names both identities where the base model was changed', async () => {
    const run = await interruptedAt(3);
    h.model.identity = 'others';
    await h.service.handlers.resumeRun({ id: run.id });
    expect((await h.reach(run.id, 'failed')).error).toMatchObject({
      code: 'model_mismatch',
      message: expect.stringMatching(/began with weights.* holds others/) as string,
      place: { file: join(h.home, 'tiny') },
    });
  });

  test('twice at once queues it once', async () => {
    const run = await interruptedAt(3);
    const results = await Promise.allSettled([
      h.service.handlers.resumeRun({ id: run.id }),
      h.service.handlers.resumeRun({ id: run.id }),
    ]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });
});

describe('before anything starts', () => {
  const nothing = () => undefined;
  test.each<[string, object, () => unknown, object]>([
    ['a model that is not there', { model: 'none' }, nothing, { code: 'not_found' }],
    ['a mix that is not there', { mix: 'none' }, nothing, { code: 'not_found' }],
    [
      "a sequence length over the model's",
      { seqLen: 1024 },
      nothing,
      {
        code: 'bad_config',
        place: { field: 'seqLen' },
        message: expect.stringContaining('512 positions') as string,
      },
    ],
    [
      'rows longer than the sequence length',
      { seqLen: 128 },
      nothing,
      { code: 'bad_config', place: { field: 'seqLen' } },
    ],
    [
      'another tokenizer',
      {},
      () => (h.model.tokenizerHash = 'other'),
      { code: 'bad_config', place: { field: 'mix' } },
    ],
    [
      'a mix of text alone',
      {},
      () => (h.mix.trainShard = null),
      { code: 'bad_config', place: { field: 'mix' } },
    ],
    [
      'no memory',
      {},
      () => (h.memory.availableBytes = 9_999),
      { code: 'does_not_fit', mend: expect.stringContaining('recompute: true') as string },
    ],
    ['no disk', {}, () => (h.disk.freeBytes = 999), { code: 'disk_full' }],
    [
      'no CUDA',
      { device: 'cuda' },
      nothing,
      {
        code: 'cuda_unavailable',
        message: expect.stringContaining('built without CUDA') as string,
        mend: expect.stringContaining('npm run build:cuda') as string,
      },
    ],
    [
      'a GPU without its driver',
      { device: 'cuda' },
      () => Object.assign(h.engines.cuda, { built: true, neededCuda: '13.0' }),
      { code: 'cuda_unavailable', message: expect.stringContaining('no NVIDIA driver') as string },
    ],
    ['a name that is a path', { name: 'a/b' }, nothing, { code: 'bad_option' }],
  ])('%s is refused', async (_, more, spoil, error) => {
    spoil();
    await expect(h.start(more)).rejects.toMatchObject(error);
    expect(await h.service.handlers.listRuns({})).toEqual([]);
    expect(existsSync(join(h.home, 'runs')) ? readdirSync(join(h.home, 'runs')) : []).toEqual([]);
    expect(await h.jobs.handlers.listJobs({})).toEqual([]);
  });

  test('a plan says what it takes, and how long by the probed pace', async () => {
    const config = runConfigSchema.parse({ model: 'tiny', mix: 'blend', seqLen: 256, batchSize: 2 });
    const plan = planSchema.parse(await h.service.handlers.planRun({ config, probe: true }));
    expect(plan).toMatchObject({
      totalMemoryBytes: 10_000,
      availableMemoryBytes: 1e9,
      fits: true,
      probe: { tokensPerSecond: 1000 },
    });
    expect(plan.estimatedMs).toBeCloseTo(800, 5);
    h.memory.availableBytes = 10;
    expect(await h.service.handlers.planRun({ config, probe: false })).toMatchObject({
      fits: false,
      probe: null,
      estimatedMs: null,
    });
  });

  test('a run that waits behind another need not fit beside it', async () => {
    await h.start();
    await h.engines.started(0);
    h.memory.availableBytes = 100;
    expect((await h.start()).state).toBe('queued');
    h.memory.totalBytes = 100;
    await expect(h.start()).rejects.toMatchObject({ code: 'does_not_fit' });
  });
});

describe('finding, naming, removing', () => {
  async function completed(name: string): Promise<Run> {
    const n = h.engines.trainings.length;
    const run = await h.start({ name });
    (await h.engines.started(n)).finish();
    return h.reach(run.id, 'completed');
  }

  test('by id, beginning of an id, name', async () => {
    const run = await completed('first');
    const find = (ref: string) => h.service.handlers.findRun({ ref }) as Run;
    for (const ref of [run.id, run.id.slice(0, 4), 'first', 'run:first']) expect(find(ref).id).toBe(run.id);
    expect(() => find('nothing')).toThrow(expect.objectContaining({ code: 'not_found' }) as Error);
  });

  test('a beginning that fits several names them', async () => {
    const [a, b] = [await completed('first'), await completed('second')];
    h.store.run('UPDATE runs SET id = ? WHERE id = ?', ['same1', a.id]);
    h.store.run('UPDATE runs SET id = ? WHERE id = ?', ['same2', b.id]);
    expect(() => h.service.handlers.findRun({ ref: 'same' })).toThrow(/begins the ids of 2 runs/);
  });

  test('a new name is kept in the folder too; a taken one is refused', async () => {
    const run = await completed('first');
    await completed('second');
    expect(await h.service.handlers.updateRun({ id: run.id, name: 'best', note: 'keep' })).toMatchObject({
      name: 'best',
      note: 'keep',
    });
    expect(metricsOf(run).at(-1)).toEqual({
      type: 'label',
      name: 'best',
      note: 'keep',
      tags: [],
      starred: false,
      archived: false,
      trashedAt: null,
    });
    await expect(
      (async () => h.service.handlers.updateRun({ id: run.id, name: 'second' }))(),
    ).rejects.toMatchObject({ code: 'name_taken' });
  });

  test('tags, star, archive and trash stay with the folder, whatever order they are given in', async () => {
    const run = await completed('first');
    const { updateRun, trashRun } = h.service.handlers;
    await Promise.all([
      updateRun({ id: run.id, tags: ['demo', 'paper', 'demo'] }),
      updateRun({ id: run.id, starred: true }),
      updateRun({ id: run.id, archived: true }),
    ]);
    await trashRun({ id: run.id });
    const marks = { tags: ['demo', 'paper'], starred: true, archived: true };
    expect(h.get(run.id)).toMatchObject({ ...marks, trashedAt: expect.any(Number) as number });
    await expect((async () => h.service.handlers.resumeRun({ id: run.id }))()).rejects.toMatchObject({
      code: 'wrong_state',
    });
    await h.killHost({ loseDatabase: true });
    expect(h.get(run.id)).toMatchObject({
      ...marks,
      trashedAt: expect.any(Number) as number,
    });
    await h.service.handlers.restoreRun({ id: run.id });
    expect(h.get(run.id).trashedAt).toBeNull();
  });

  test('a list in pages has every run once, newest first', async () => {
    const ids: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      h.clock.time += 5;
      ids.unshift((await completed(name)).id);
    }
    const { listRuns } = h.service.handlers;
    const names = async (page: { after?: string; limit?: number }) =>
      (await listRuns(page)).map(({ id }) => id);
    expect(await names({ limit: 2 })).toEqual(ids.slice(0, 2));
    expect(await names({ after: ids[1]!, limit: 2 })).toEqual(ids.slice(2));
    expect(await names({ after: ids[2]! })).toEqual([]);
    await expect((async () => listRuns({ after: 'gone' }))()).rejects.toMatchObject({ code: 'not_found' });
  });

  test('removing takes folder and rows', async () => {
    const run = await completed('first');
    await h.service.handlers.removeRun({ id: run.id });
    expect(existsSync(run.dir)).toBe(false);
    expect(await h.service.handlers.listRuns({})).toEqual([]);
    expect(h.told).toContainEqual({ name: 'runRemoved', payload: { id: run.id } });
  });

  test('the model that a run made, by any reference', async () => {
    const run = await h.start({ name: 'first' });
    await expect(h.service.training.trainedModel('first')).rejects.toMatchObject({ code: 'wrong_state' });
    const path = checkpoint(run, 20).path;
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'manifest.json'), '{}');
    for (const ref of ['first', run.id, run.dir, path])
      expect(await h.service.training.trainedModel(ref)).toMatchObject({
        runName: 'first',
        checkpointDir: path,
        modelDir: join(h.home, 'tiny'),
        template: 'camelidae',
      });
    expect(await h.service.training.trainedModel('nothing')).toBeNull();
    expect(await h.service.training.trainedModel(h.home)).toBeNull();
  });
});

test('the rows that a step saw, with their losses', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  engine.step(1, { rows: Int32Array.of(5, 3), rowLosses: Float32Array.of(0.5, 1.25) });
  engine.finish();
  await h.reach(run.id, 'completed');
  const origin = (row: number) => ({
    sourceRow: row + 100,
    file: 'a.jsonl',
    line: row + 101,
    hash: `hash ${row}`,
  });
  h.data.answers.readMixRowsAt = ({ rows }) =>
    rows.map((row) => ({
      row,
      source: 'a',
      messages: [{ role: 'user', content: `row ${row}` }],
      tokens: row * 10,
      ...origin(row),
    }));
  expect(await h.service.handlers.readStepRows({ id: run.id, step: 1 })).toEqual([
    {
      row: 5,
      source: 'a',
      loss: 0.5,
      tokens: 50,
      messages: [{ role: 'user', content: 'row 5' }],
      ...origin(5),
    },
    {
      row: 3,
      source: 'a',
      loss: 1.25,
      tokens: 30,
      messages: [{ role: 'user', content: 'row 3' }],
      ...origin(3),
    },
  ]);
  await expect(
    (async () => h.service.handlers.readStepRows({ id: run.id, step: 9 }))(),
  ).rejects.toMatchObject({ code: 'not_found' });
});

test('closing stops what trains with a checkpoint and leaves it resumable; what waits does not start', async () => {
  const [first, second] = [await h.start(), await h.start()];
  const engine = await h.engines.started(0);
  const closing = h.service.close();
  await expect.poll(() => engine.asked).toEqual(['stop']);
  engine.finish({ reason: 'stopped', step: 5 });
  await closing;
  expect(h.get(first.id)).toMatchObject({ state: 'interrupted', step: 5, error: { code: 'interrupted' } });
  expect(h.get(second.id)).toMatchObject({ state: 'interrupted', error: { code: 'interrupted' } });
  expect(h.engines.trainings).toHaveLength(1);
  await h.jobs.close();
});
