/** The services over their real processes: rows in, a crafted and trained model out, and nothing lost on the way. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeRandomModel } from '../../tests/support/randomModel.ts';
import { needs } from '../../tests/support/skip.ts';
import { createDataProcess, type DataProcess } from '../data/client.ts';
import { createHubProcess } from '../hub/client.ts';
import type { Engines } from '../engine/client.ts';
import { createEngines } from '../engine/createEngines.ts';
import { composeServices, type Services } from '../host/composeServices.ts';
import { calls, type CallInput, type CallName, type CallResult } from '../shared/contract/contract.ts';
import type { Job } from '../shared/job/job.ts';
import type { Run, RunState } from '../shared/run/run.ts';
import { openStore, type Store } from '../store/openStore.ts';

let dir: string;
let model: string;
let store: Store;
let data: DataProcess;
let engines: Engines;
let services: Services;
let streamed = '';

/** Parses both ways, as carriers do. */
async function call<N extends CallName>(name: N, params: CallInput<N>): Promise<CallResult<N>> {
  const handler = (services.handlers as Record<string, (params: unknown) => unknown>)[name]!;
  return calls[name].result.parse(await handler(calls[name].params.parse(params))) as CallResult<N>;
}

async function done(job: Job): Promise<Job> {
  for (;;) {
    const now = await call('getJob', { id: job.id });
    if (now.endedAt !== null) {
      expect(now.error).toBeNull();
      return now;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function until(id: string, seen: (run: Run) => boolean): Promise<Run> {
  for (;;) {
    const run = await call('getRun', { id });
    if (seen(run)) return run;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const ended = (id: string): Promise<Run> =>
  until(id, ({ state }) => (['completed', 'stopped', 'failed', 'interrupted'] as RunState[]).includes(state));

describe.runIf(needs('addon'))('the main job', () => {
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'services-'));
    model = writeRandomModel(join(dir, 'tiny'));
    for (const [source, word] of [
      ['sums', 'plus'],
      ['words', 'and'],
    ] as const)
      writeFileSync(
        join(dir, `${source}.jsonl`),
        Array.from(
          { length: 30 },
          (_, i) =>
            `${JSON.stringify({ question: `${i} ${word} one?`, answer: `It is ${word} ${i + 1}.` })}\n`,
        ).join(''),
      );
    store = await openStore({ file: join(dir, 'home/caravan.db') });
    data = createDataProcess();
    engines = createEngines();
    services = composeServices({
      home: join(dir, 'home'),
      version: '0.1.0',
      store,
      data,
      hubProcess: createHubProcess(),
      engines,
      emit(name, payload) {
        if (name === 'answerToken') streamed += (payload as { text: string }).text;
      },
    });
  });
  afterAll(async () => {
    await services.close();
    await engines.inference.close();
    await data.close();
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const config = (more: object = {}) => ({
    model: 'tiny',
    mix: 'blend',
    baseDtype: 'nf4' as const,
    computeDtype: 'f32' as const,
    numExperts: 4,
    adapterDim: 8,
    loraRank: 4,
    batchSize: 8,
    microBatchSize: 2,
    seqLen: 64,
    epochs: 3,
    lr: 0.01,
    saveSteps: 3,
    evalSteps: 6,
    threads: 1,
    ...more,
  });
  let whole: Run;

  test('adds a model, imports on the way, mixes, plans', async () => {
    const added = await done(await call('addModel', { path: model }));
    expect(await call('getModel', { id: added.subjectId! })).toMatchObject({
      name: 'tiny',
      bosToken: '<|bos|>',
      identity: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    });
    const recipe = {
      name: 'blend',
      model: 'tiny',
      seqLen: 64,
      validation: { perSource: 4 },
      sources: [
        { name: 'sums', path: 'sums.jsonl', weight: 1 },
        { name: 'words', path: 'words.jsonl', weight: 1 },
      ],
    };
    const mixed = await done(await call('buildMix', { recipe, baseDir: dir }));
    expect(await call('getMix', { id: mixed.subjectId! })).toMatchObject({
      rows: 52,
      validationRows: 8,
      model: 'tiny',
    });
    const plan = await call('planRun', { config: config(), probe: true });
    expect(plan).toMatchObject({ rows: 52, steps: 21, fits: true });
    expect(plan.estimatedMs).toBeGreaterThan(0);
  });

  test('trains, with every step kept', async () => {
    const run = await call('startRun', { config: config({ name: 'whole' }) });
    whole = await ended(run.id);
    expect(whole).toMatchObject({
      state: 'completed',
      error: null,
      step: 21,
      totalSteps: 21,
      stepZeroDifference: 0,
    });
    expect(whole.quantizationDifference).toBeGreaterThan(0);
    expect(whole.lastEvaluation!.loss!).toBeLessThan(whole.firstEvaluation!.loss!);
    const steps = await call('readSteps', { id: run.id });
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 21 }, (_, i) => i + 1));
    expect(steps[0]!.lossBySource.map(({ source }) => source).sort()).toEqual(['sums', 'words']);
    const layer = steps[0]!.expertShares.slice(0, 4).reduce((a, b) => a + b, 0);
    expect(layer).toBeCloseTo(1, 5);
    const rows = await call('readStepRows', { id: run.id, step: 1 });
    expect(rows).toHaveLength(8);
    expect(rows[0]!.messages[0]!.content).toMatch(/one\?$/);
  });

  test('killed at any moment and resumed, ends in the same bytes', async () => {
    let killed = 0;
    for (const killAt of [1, 5, 14]) {
      const run = await call('startRun', { config: config({ name: `killed ${killAt}` }) });
      await until(run.id, ({ step, state }) => step >= killAt || state === 'failed');
      const { processes } = await call('systemStatus', {});
      const engine = processes.find(({ name }) => name === `training ${run.name}`);
      // It may have ended just before.
      if (engine) process.kill(engine.pid, 'SIGKILL');
      const dead = await ended(run.id);
      if (engine && dead.state === 'interrupted') {
        killed++;
        expect(dead.crash).toMatchObject({ signal: 'SIGKILL' });
        await call('resumeRun', { id: run.id });
      }
      const resumed = await ended(run.id);
      expect(resumed).toMatchObject({ state: 'completed', step: 21, error: null });
      const files = readdirSync(whole.lastCheckpoint!).sort();
      expect(readdirSync(resumed.lastCheckpoint!).sort()).toEqual(files);
      for (const file of files)
        expect(
          readFileSync(join(resumed.lastCheckpoint!, file)).equals(
            readFileSync(join(whole.lastCheckpoint!, file)),
          ),
          file,
        ).toBe(true);
      const [a, b] = [await call('readSteps', { id: whole.id }), await call('readSteps', { id: run.id })];
      expect(b.map(({ step, loss }) => [step, loss])).toEqual(a.map(({ step, loss }) => [step, loss]));
    }
    expect(killed).toBeGreaterThan(0);
  });

  test('pauses, goes on, and stops with a checkpoint', async () => {
    const run = await call('startRun', { config: config({ name: 'stopped', epochs: 200 }) });
    await until(run.id, ({ step }) => step >= 2);
    await call('pauseRun', { id: run.id });
    const paused = await until(run.id, ({ phase }) => phase === 'paused');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await call('getRun', { id: run.id })).step).toBe(paused.step);
    await call('continueRun', { id: run.id });
    await until(run.id, ({ step }) => step > paused.step);
    await call('stopRun', { id: run.id });
    const stopped = await ended(run.id);
    expect(stopped).toMatchObject({ state: 'stopped', error: null });
    expect(stopped.lastCheckpoint).toContain(`step-${String(stopped.step).padStart(6, '0')}`);
  });

  test('the run answers, scores and routes', async () => {
    const sampling = { temperature: 0, maxTokens: 8 };
    const messages = [{ role: 'user' as const, content: '3 plus one?' }];
    const answer = await call('generateAnswer', { answerId: 'a', model: 'run:whole', messages, sampling });
    expect(answer.ids.length).toBeGreaterThan(0);
    expect(streamed).toBe(answer.text);
    const [scored] = await call('score', {
      model: 'tiny',
      rows: [{ context: 'It is', continuation: ' plus' }],
    });
    expect(scored!.logprob).toBeLessThan(0);
    expect(scored!.tokenLogprobs).toHaveLength(scored!.ids.length);
    const rows = [
      { text: '3 plus one?', source: 'sums' },
      { text: '3 and one?', source: 'words' },
    ];
    const routed = await call('route', { model: 'whole', rows });
    expect(routed).toMatchObject({ layers: 2, experts: 4 });
    const layer = routed.sources[0]!.any.slice(0, 4).reduce((a, b) => a + b, 0);
    expect(layer).toBeCloseTo(2, 5);
    expect(routed.mutualInformation).toBeGreaterThanOrEqual(0);
  });

  test('the doctor finds the engine', async () => {
    const { checks } = await call('doctor', {});
    expect(checks.find(({ name }) => name === 'engine')).toMatchObject({ status: 'ok' });
  });
});
