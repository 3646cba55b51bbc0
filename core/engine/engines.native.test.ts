import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import {
  demoTokenizer,
  tinyModelOptions,
  tinyTraining,
  writeTinyModel,
  writeTinyShard,
} from '../../tests/support/tinyModel.ts';
import type {
  Addon,
  CheckpointInfo,
  EvaluationMetrics,
  SessionOpened,
  StepMetrics,
  TrainOptions,
  TrainingPlan,
} from './AddonTypes.ts';
import {
  createEngines,
  engineOf,
  readJournal,
  type GenerateRequest,
  type TrainingListener,
} from './client.ts';
import { loadAddon } from './loadAddon.ts';

interface Record extends TrainingListener {
  opened: (SessionOpened & { atStep: number })[];
  phases: string[];
  loaded: [done: number, total: number];
  batches: number;
  steps: StepMetrics[];
  evaluations: EvaluationMetrics[];
  checkpoints: CheckpointInfo[];
  /** Resolves once so many steps are known. */
  reached(step: number): Promise<void>;
}

function recorder(): Record {
  const waiting: { step: number; resolve: () => void }[] = [];
  const record: Record = {
    opened: [],
    phases: [],
    loaded: [0, 0],
    batches: 0,
    steps: [],
    evaluations: [],
    checkpoints: [],
    reached: (step) =>
      new Promise((resolve) => {
        waiting.push({ step, resolve });
        if (record.steps.length >= step) resolve();
      }),
    onPhase: (phase) => record.phases.push(phase),
    onLoading: (done, total) => void (record.loaded = [done, total]),
    onOpened: (opened) => record.opened.push({ ...opened, atStep: record.steps.length }),
    onSteps(steps) {
      record.batches++;
      record.steps.push(...steps);
      for (const { step, resolve } of waiting) if (record.steps.length >= step) resolve();
    },
    onEvaluation: (evaluation) => record.evaluations.push(evaluation),
    onCheckpoint: (checkpoint) => record.checkpoints.push(checkpoint),
    onLog: () => {},
  };
  return record;
}

const tokens = { bos: '<|begin|>', eos: '<|end|>', specials: ['<|begin|>', '<|end|>'], chatTemplate: null };

describe.runIf(needs('addon'))('engine processes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-engines-'));
  const engines = createEngines({ inferenceSilenceMs: 3000 });
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
    const tokenizer = await addon.openTokenizer(demoTokenizer);
    tokens.bos = tokenizer.idToToken(0)!;
    tokens.eos = tokenizer.idToToken(1)!;
    tokens.specials = [tokens.bos, tokens.eos];
    tokenizer.dispose();
  });
  afterAll(async () => {
    await engines.inference.close();
    rmSync(folder, { recursive: true });
  });

  test('a run tells every step and evaluation, and its end', async () => {
    const record = recorder();
    const engine = engines.startTraining(options({ validationShard: trainShard }), record);
    expect(engine.pid).toBeGreaterThan(0);
    const end = await engine.ended;
    expect(end).toMatchObject({ kind: 'ended', result: { reason: 'finished', step: 6, totalSteps: 6 } });
    expect(record.steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(record.steps[0]!.rowLosses).toBeInstanceOf(Float32Array);
    expect(record.evaluations.map(({ step }) => step)).toEqual([0, 6]);
    expect(record.opened).toEqual([{ stepZeroDifference: 0, quantizationDifference: null, atStep: 0 }]);
    expect(record.checkpoints.map(({ step }) => step)).toEqual([6]);
    expect([record.phases[0], record.phases.at(-1)]).toEqual(['loading', 'finished']);
    expect(record.loaded[1]).toBeGreaterThan(10_000);
  });

  test('a run pauses, goes on, stops with a checkpoint, and resumes from it', async () => {
    const asked = options({ epochs: 500 });
    const record = recorder();
    const engine = engines.startTraining(asked, record);
    await record.reached(5);
    engine.pause();
    await expect.poll(() => record.phases.at(-1)).toBe('paused');
    await sleep(250);
    const paused = record.steps.length;
    await sleep(250);
    expect(record.steps).toHaveLength(paused);
    engine.resume();
    await record.reached(paused + 5);
    engine.stop();
    const end = await engine.ended;
    if (end.kind !== 'ended') throw new Error(JSON.stringify(end));
    expect(end.result).toMatchObject({ reason: 'stopped', step: record.steps.length });
    expect(record.batches).toBeLessThan(record.steps.length);

    const [checkpoint] = await engines.inference.listCheckpoints(asked.checkpointDir);
    expect(checkpoint).toMatchObject({ step: end.result.step, problem: null });
    const second = recorder();
    const resumed = engines.startTraining({ ...asked, resumeFrom: checkpoint!.path }, second);
    await second.reached(1);
    resumed.stop({ discard: true });
    expect(await resumed.ended).toMatchObject({ kind: 'ended', result: { reason: 'stopped' } });
    expect(second.steps[0]!.step).toBe(end.result.step + 1);
  });

  test('a run that is killed has died, by name; its checkpoints resume', async () => {
    const asked = options({ epochs: 500, saveSteps: 3 });
    const record = recorder();
    const engine = engines.startTraining(asked, record);
    await record.reached(10);
    process.kill(engine.pid!, 'SIGKILL');
    expect(await engine.ended).toEqual({
      kind: 'died',
      exitCode: null,
      signal: 'SIGKILL',
      stderrTail: [],
    });
    const found = await engines.inference.listCheckpoints(asked.checkpointDir);
    expect(found[0]).toMatchObject({ problem: null });
    const again = recorder();
    const resumed = engines.startTraining({ ...asked, resumeFrom: found[0]!.path }, again);
    await again.reached(1);
    resumed.stop({ discard: true });
    await resumed.ended;
    expect(again.steps[0]!.step).toBe(found[0]!.step + 1);
  });

  test('a run that hangs cannot be stopped, but killed, and says why', async () => {
    const asked = options({ epochs: 500 });
    const record = recorder();
    const engine = engines.startTraining(asked, record);
    await record.reached(3);
    process.kill(engine.pid!, 'SIGSTOP');
    engine.stop();
    await sleep(500);
    expect(isAlive(engine.pid!)).toBe(true);
    engine.kill('it hung');
    expect(await engine.ended).toEqual({
      kind: 'died',
      exitCode: null,
      signal: 'SIGKILL',
      stderrTail: ['it hung'],
    });
  });

  test('a run that cannot begin fails with its own error', async () => {
    const missing = engines.startTraining(options({ modelDir: join(folder, 'absent') }), recorder());
    expect(await missing.ended).toMatchObject({ kind: 'failed', error: { code: 'bad_file' } });
    const wrong = engines.startTraining(options({ batchSize: 0 }), recorder());
    expect(await wrong.ended).toMatchObject({
      kind: 'failed',
      error: { code: 'bad_option', message: expect.stringContaining('batchSize') as string },
    });
    expect(
      await createEngines({ entry: join(folder, 'absent.ts') }).startTraining(options(), recorder()).ended,
    ).toMatchObject({ kind: 'died', exitCode: 1 });
  });

  test('a run whose host disappears stops with a checkpoint and leaves', async () => {
    const asked = options({ epochs: 100_000 });
    const runDir = join(folder, 'orphan');
    mkdirSync(runDir);
    const host = join(folder, 'host.ts');
    writeFileSync(
      host,
      `import { createEngines } from ${JSON.stringify(fileURLToPath(new URL('client.ts', import.meta.url)))};
       const engine = createEngines().startTraining(${JSON.stringify(asked)}, {
         onPhase() {}, onLoading() {}, onOpened() {}, onEvaluation() {}, onCheckpoint() {}, onLog() {},
         onSteps: () => process.stdout.write(engine.pid + '\\n'),
       }, ${JSON.stringify(runDir)});`,
    );
    const child = spawn(process.execPath, [host], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = await new Promise<number>((resolve) =>
      child.stdout.once('data', (text: Buffer) => resolve(Number.parseInt(text.toString(), 10))),
    );
    expect(engineOf(runDir)).toBe(pid);
    child.kill('SIGKILL');
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
    const [checkpoint] = await engines.inference.listCheckpoints(asked.checkpointDir);
    expect(checkpoint).toMatchObject({ problem: null });
    expect(checkpoint!.step).toBeGreaterThan(0);
    // Nobody heard the last of it, and all of it is there.
    expect(engineOf(runDir)).toBeNull();
    const steps = readJournal(runDir).flatMap(({ told }) => (told.type === 'steps' ? told.steps : []));
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: checkpoint!.step }, (_, i) => i + 1));
    expect(readJournal(runDir).at(-1)!.told).toMatchObject({ type: 'ended', result: { reason: 'stopped' } });
  });

  const question = (change: Partial<GenerateRequest> = {}): GenerateRequest => ({
    model: tinyModelOptions(modelDir),
    answerId: 'answer',
    messages: [{ role: 'user', content: 'What is 2 + 3?' }],
    template: 'camelidae',
    tokens,
    tokenizerPath: demoTokenizer,
    sampling: { maxTokens: 20, temperature: 0, seed: 0, stop: [] },
    stopIds: [],
    ...change,
  });

  test('an answer is streamed, and is that of the addon on the rendered prompt', async () => {
    const told: { text: string; tokens: number }[] = [];
    const answer = await engines.inference.generate(question(), (text, count) =>
      told.push({ text, tokens: count }),
    );
    expect(answer).toMatchObject({ stopReason: 'length' });
    expect(answer.ids).toHaveLength(20);
    expect(told.map(({ text }) => text).join('')).toBe(answer.text);
    expect(told.at(-1)!.tokens).toBe(20);

    const tokenizer = await addon.openTokenizer(demoTokenizer);
    const model = await addon.openModel(tinyModelOptions(modelDir));
    const prompt = tokenizer.encode('### Human:\nWhat is 2 + 3?\n### Assistant:\n');
    const direct = await model.generate(
      {
        generationId: 'direct',
        promptIds: Int32Array.of(0, ...prompt),
        maxTokens: 20,
        temperature: 0,
        stopIds: [1],
        tokenizer,
      },
      () => {},
    );
    expect(answer.ids).toEqual([...direct.ids]);
    expect(answer.promptTokens).toBe(prompt.length + 1);
    const stop = direct.ids[3]!;
    const stopped = await engines.inference.generate(question({ stopIds: [stop] }), () => {});
    expect(stopped.stopReason).toBe('eos');
    expect(stopped.ids).toEqual([...direct.ids.slice(0, direct.ids.indexOf(stop) + 1)]);
    const text = answer.text.slice(5, 8);
    const cut = await engines.inference.generate(
      question({ sampling: { ...question().sampling, stop: [text] } }),
      () => {},
    );
    expect(cut.text).toBe(answer.text.slice(0, answer.text.indexOf(text)));
  });

  test('an answer is cancelled, while it runs and before it begins', async () => {
    const long = question({ sampling: { ...question().sampling, maxTokens: 200 } });
    let told = 0;
    const running = engines.inference.generate(long, () => {
      if (++told === 1) engines.inference.cancel('answer');
    });
    const answer = await running;
    expect(answer.stopReason).toBe('cancelled');
    expect(answer.ids.length).toBeLessThan(200);
    const early = engines.inference.generate(
      { ...long, answerId: 'early', model: { ...long.model, threads: 2 } },
      () => {},
    );
    engines.inference.cancel('early');
    expect(await early).toMatchObject({ stopReason: 'cancelled', ids: [] });
  });

  test('scores what follows the context, tokenised together, after a BOS of the tokenizer', async () => {
    const rows = [
      { context: 'Question: 1 + 1?\nAnswer:', continuation: ' 2' },
      { context: '', continuation: 'alone' },
    ];
    const scores = await engines.inference.score(tinyModelOptions(modelDir), demoTokenizer, rows);
    const tokenizer = await addon.openTokenizer(demoTokenizer);
    const model = await addon.openModel(tinyModelOptions(modelDir));
    expect(tokenizer.bosId).toBe(0);
    for (const [index, { context, continuation }] of rows.entries()) {
      const whole = Int32Array.of(0, ...tokenizer.encode(context + continuation));
      const first = 1 + tokenizer.encode(context).length;
      const [expected] = await model.score([whole], [first]);
      expect(scores[index]).toEqual({ ...expected, ids: [...whole.subarray(first)] });
    }
  });

  test('tells which experts chose, of a checkpoint', async () => {
    const asked = options();
    await engines.startTraining(asked, recorder()).ended;
    const [checkpoint] = await engines.inference.listCheckpoints(asked.checkpointDir);
    const route = await engines.inference.route(
      { ...tinyModelOptions(modelDir), checkpointDir: checkpoint!.path },
      demoTokenizer,
      [
        { text: 'one two', group: 0 },
        { text: 'three', group: 1 },
      ],
      2,
    );
    expect(route).toMatchObject({ layers: 2, experts: 2, groups: 2 });
    const tokenizer = await addon.openTokenizer(demoTokenizer);
    expect(route.tokens[0]).toBe(1 + tokenizer.encode('one two').length);
  });

  test('plans, probes and says what it runs on', async () => {
    // What a process holds before it trains is its own.
    const withoutProgram = ({ memory, totalMemoryBytes, ...rest }: TrainingPlan) => {
      const program = memory.find(({ item }) => item === 'program')!.bytes;
      return {
        ...rest,
        memory: memory.filter(({ item }) => item !== 'program'),
        totalMemoryBytes: totalMemoryBytes - program,
      };
    };
    expect(withoutProgram(await engines.inference.plan(options()))).toEqual(
      withoutProgram(await addon.planTraining(options())),
    );
    expect((await engines.inference.probe(options())).stepMs).toBeGreaterThan(0);
    expect(await engines.inference.buildInfo()).toEqual(addon.buildInfo());
  });

  test('lists GPUs exactly where it can compute on them, and says what is missing elsewhere', async () => {
    const [cpu, ...gpus] = await engines.inference.devices();
    expect(cpu).toMatchObject({ kind: 'cpu' });
    const status = await engines.inference.cudaStatus();
    expect(status.built).toBe(addon.buildInfo().cuda);
    const usable = status.devices.filter(({ hasCode }) => hasCode);
    expect(gpus.map(({ name }) => name)).toEqual(usable.map(({ name }) => name));
    for (const gpu of gpus) expect(gpu).toMatchObject({ kind: 'cuda' });
    expect(status.unavailable === null).toBe(gpus.length > 0);
    if (!status.built) expect(status.unavailable).toContain('this build holds no CUDA kernels');
    else if (status.driverCuda === null) expect(status.unavailable).toContain('no NVIDIA driver');
  });

  test('errors of requests keep their codes', async () => {
    await expect(engines.inference.plan(options({ topK: 5 }))).rejects.toMatchObject({ code: 'bad_option' });
    const half = question({ messages: [{ role: 'user', content: 'a\uD800' }] });
    await expect(engines.inference.generate(half, () => {})).rejects.toMatchObject({ code: 'invalid_utf8' });
    await expect(engines.inference.generate(question({ template: 'model' }), () => {})).rejects.toMatchObject(
      { code: 'template_failed' },
    );
    await expect(
      engines.inference.generate(question({ tokenizerPath: join(folder, 'absent.json') }), () => {}),
    ).rejects.toMatchObject({ code: 'tokenizer_invalid' });
  });

  test('a template without end harms that engine alone, and the next request starts another', async () => {
    const first = engines.inference.pid;
    const endless = {
      ...tokens,
      chatTemplate: `{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% set x = 1 %}{% endfor %}{% endfor %}{% endfor %}`,
    };
    await expect(
      engines.inference.generate(question({ template: 'model', tokens: endless }), () => {}),
    ).rejects.toMatchObject({ code: 'engine_died' });
    expect((await engines.inference.generate(question(), () => {})).ids).toHaveLength(20);
    expect(engines.inference.pid).not.toBe(first);
  });

  test('requests of an engine that is killed are rejected; close is final for what is under way', async () => {
    const other = createEngines();
    await other.inference.devices();
    const long = question({ sampling: { ...question().sampling, maxTokens: 200 } });
    const killed = other.inference.generate(long, () => process.kill(other.inference.pid!, 'SIGKILL'));
    await expect(killed).rejects.toMatchObject({ code: 'engine_died' });
    expect((await other.inference.devices())[0]).toMatchObject({ kind: 'cpu' });
    const closed = other.inference.generate(long, () => {});
    const { pid } = other.inference;
    await Promise.all([
      expect(closed).rejects.toMatchObject({ code: 'engine_died' }),
      other.inference.close(),
    ]);
    expect(isAlive(pid!)).toBe(false);
    await other.inference.close();
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie whose parent was killed has ended too.
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
