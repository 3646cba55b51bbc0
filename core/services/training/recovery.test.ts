import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createTrainingHarness, type TrainingHarness } from '../../../tests/support/trainingHarness.ts';
import { fakeStep } from '../../../tests/support/fakeEngines.ts';
import { claimRun, journalFile } from '../../engine/client.ts';
import { openJournal } from '../../engine/journal.ts';
import type { Job } from '../../shared/job/job.ts';
import type { Run } from '../../shared/run/run.ts';

let h: TrainingHarness;
beforeEach(async () => {
  h = await createTrainingHarness();
});
afterEach(() => h.dispose());

const stepsOf = async (run: Run) =>
  (await h.service.handlers.readSteps({ id: run.id, fromStep: 0, limit: 2000 })).map(({ step, loss }) => [
    step,
    loss,
  ]);

function writeCheckpoint(run: Run, step: number): string {
  const path = join(run.dir, `checkpoints/step-${String(step).padStart(6, '0')}`);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'manifest.json'), '{}');
  return path;
}

/** A run with some steps on disk, under way. */
async function running(steps: number): Promise<Run> {
  const run = await h.start({ name: 'first' });
  const engine = await h.engines.started(0);
  for (let step = 1; step <= steps; step++) engine.step(step, { loss: step });
  engine.listener.onEvaluation({ step: 2, loss: 2, bySource: [], evaluationMs: 1 });
  await expect.poll(() => h.store.get<{ n: number }>('SELECT count(*) AS n FROM evaluations')!.n).toBe(1);
  return run;
}

describe('a host that ends without a word', () => {
  test('finds its run interrupted, with what it had reached, and resumes it', async () => {
    const run = await running(6);
    const checkpoint = writeCheckpoint(run, 4);
    await h.killHost();
    expect(h.get(run.id)).toMatchObject({
      state: 'interrupted',
      phase: null,
      step: 6,
      loss: 6,
      error: { code: 'interrupted' },
      crash: null,
      lastCheckpoint: checkpoint,
      endedAt: h.clock.time,
    });
    h.engines.checkpoints = [{ step: 4, path: checkpoint, bytes: 1, problem: null }];
    await h.service.handlers.resumeRun({ id: run.id });
    const engine = await h.engines.started(1);
    expect(engine.options.resumeFrom).toBe(checkpoint);
    engine.step(5, { loss: 50 });
    engine.finish({ step: 5 });
    await h.reach(run.id, 'completed');
    expect(await stepsOf(run)).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
      [5, 50],
    ]);
  });

  test('steps that reached the file but not the database are indexed, a line cut short is not', async () => {
    const run = await running(3);
    const file = join(run.dir, 'metrics.jsonl');
    const line = readFileSync(file, 'utf8').split('\n')[0]!;
    const whole = line.replace('"step":1,', '"step":4,').replace('"loss":1,', '"loss":4,');
    appendFileSync(file, `${whole}\n${line.slice(0, 40)}`);
    const torn = statSync(file).size;
    await h.killHost();
    expect(h.get(run.id)).toMatchObject({ state: 'interrupted', step: 4 });
    expect(await stepsOf(run)).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
    await h.service.handlers.resumeRun({ id: run.id });
    (await h.engines.started(1)).finish({ step: 0 });
    await h.reach(run.id, 'completed');
    const text = readFileSync(file, 'utf8');
    expect(text.length).toBeGreaterThan(torn);
    for (const each of text.trim().split('\n')) expect(() => JSON.parse(each) as unknown).not.toThrow();
  });

  test('a run that waited is interrupted too, and can be resumed from nothing', async () => {
    await running(1);
    const waiting = await h.start({ name: 'second' });
    await h.killHost();
    expect(h.get(waiting.id)).toMatchObject({ state: 'interrupted', attempt: 0 });
    await h.service.handlers.resumeRun({ id: waiting.id });
    const engine = await h.engines.started(1);
    expect(engine.options).not.toHaveProperty('resumeFrom');
    expect(h.get(waiting.id)).toMatchObject({ state: 'running', attempt: 0 });
  });
});

describe('an engine that outlives its host', () => {
  /** What it goes on to tell when nobody hears it. */
  function journalOf(run: Run, from: number, to: number) {
    const journal = openJournal(run.dir, (error) => {
      throw error;
    });
    for (let step = from; step <= to; step++)
      journal.write({ type: 'steps', steps: [fakeStep(step, { loss: step / 10 })] });
    return journal;
  }
  const numbers = async (run: Run) => (await stepsOf(run)).map(([step]) => step);
  const linesOf = (run: Run) => readFileSync(join(run.dir, 'metrics.jsonl'), 'utf8').trim().split('\n');

  test('loses no step of the curve: the next host takes them from its journal', async () => {
    const run = await running(4);
    const journal = journalOf(run, 3, 9);
    journal.write({
      type: 'evaluation',
      evaluation: { step: 8, loss: 0.5, bySource: [], evaluationMs: 1 },
    });
    journal.write({ type: 'opened', opened: { stepZeroDifference: 0, quantizationDifference: 0.25 } });
    writeCheckpoint(run, 9);
    await h.killHost();
    expect(h.get(run.id)).toMatchObject({
      state: 'interrupted',
      step: 9,
      loss: 0.9,
      lastEvaluation: { step: 8 },
      stepZeroDifference: 0,
      quantizationDifference: 0.25,
    });
    expect(await numbers(run)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect((await stepsOf(run))[3]).toEqual([4, 4]);
    expect(readFileSync(join(run.dir, 'log.txt'), 'utf8')).toContain('outlived its host by 5 steps');
    expect(existsSync(journalFile(run.dir))).toBe(false);
    const lines = linesOf(run);
    await h.killHost({ loseDatabase: true });
    expect(await numbers(run), 'metrics.jsonl has them too').toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(linesOf(run)).toEqual(lines);
    h.engines.checkpoints = [{ step: 9, path: writeCheckpoint(run, 9), bytes: 1, problem: null }];
    await h.service.handlers.resumeRun({ id: run.id });
    (await h.engines.started(1)).finish({ step: 9 });
    await h.reach(run.id, 'completed');
    expect(await numbers(run)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('and came to the end of its run, has completed it', async () => {
    const run = await running(4);
    const result = { step: 5, totalSteps: 5, checkpoint: '/x', stepZeroDifference: 0 };
    journalOf(run, 5, 5).write({
      type: 'ended',
      result: { ...result, reason: 'finished', quantizationDifference: null },
    });
    await h.killHost();
    expect(h.get(run.id)).toMatchObject({ state: 'completed', step: 5, error: null, stepZeroDifference: 0 });
  });

  test('trains alone in its folder: a resume waits for it, and says so', async () => {
    const run = await running(4);
    const orphan = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
    claimRun(run.dir, orphan.pid!);
    const journal = journalOf(run, 5, 5);
    await h.killHost();
    expect(h.get(run.id).step, 'a journal that is still written is not taken').toBe(4);
    await h.service.handlers.resumeRun({ id: run.id });
    const job = () => (h.jobs.handlers.listJobs({}) as Job[])[0]!;
    await expect.poll(() => job().progress?.stage).toMatch(new RegExp(`engine.*process ${orphan.pid}`));
    journal.write({ type: 'steps', steps: [fakeStep(6)] });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(h.engines.trainings).toHaveLength(1);
    h.engines.checkpoints = [{ step: 6, path: writeCheckpoint(run, 6), bytes: 1, problem: null }];
    orphan.kill('SIGKILL');
    const engine = await h.engines.started(1);
    expect(engine.options.resumeFrom).toBe(writeCheckpoint(run, 6));
    engine.step(7);
    engine.finish({ step: 7 });
    await h.reach(run.id, 'completed');
    expect(await numbers(run)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });
});

test('an engine that dies before its last words are heard has them in its journal', async () => {
  const run = await running(4);
  const engine = h.engines.trainings[0]!;
  engine.listener.onLog('info', 'four steps');
  engine.listener.onLine!(4);
  await expect.poll(() => engine.recorded).toEqual([4]);
  const journal = openJournal(run.dir, (error) => {
    throw error;
  });
  for (let step = 1; step <= 6; step++)
    journal.write({ type: 'steps', steps: [fakeStep(step, { loss: 9 })] });
  engine.die('SIGKILL');
  expect(await h.reach(run.id, 'interrupted')).toMatchObject({ step: 6, crash: { lastStep: 6 } });
  expect(await stepsOf(run)).toEqual([
    [1, 1],
    [2, 2],
    [3, 3],
    [4, 4],
    [5, 9],
    [6, 9],
  ]);
});

test('what was measured before the first step is there after a crash, and after the loss of the database', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  engine.listener.onOpened({ stepZeroDifference: 0, quantizationDifference: 0.5 });
  const measured = { stepZeroDifference: 0, quantizationDifference: 0.5 };
  expect(h.get(run.id)).toMatchObject({ state: 'running', ...measured });
  engine.die('SIGKILL');
  expect(await h.reach(run.id, 'interrupted')).toMatchObject(measured);
  await h.killHost({ loseDatabase: true });
  expect(h.get(run.id)).toMatchObject(measured);
});

describe('a database that lacks the runs', () => {
  test('is filled from their folders, supersession included', async () => {
    const run = await running(6);
    h.engines.trainings[0]!.die('SIGSEGV', ['fatal: something']);
    await h.reach(run.id, 'interrupted');
    const checkpoint = writeCheckpoint(run, 3);
    h.engines.checkpoints = [{ step: 3, path: checkpoint, bytes: 1, problem: null }];
    await h.service.handlers.resumeRun({ id: run.id });
    const engine = await h.engines.started(1);
    engine.step(4, { loss: 40 });
    engine.finish({ step: 4, checkpoint });
    const before = await h.reach(run.id, 'completed');
    await h.service.handlers.updateRun({ id: run.id, name: 'best', note: 'keep it' });
    const steps = await h.service.handlers.readSteps({ id: run.id, fromStep: 0, limit: 100 });
    await h.killHost({ loseDatabase: true });
    expect(h.warnings).toEqual([]);
    expect(h.get(run.id)).toEqual({
      ...before,
      name: 'best',
      note: 'keep it',
      startedAt: expect.any(Number) as number,
    });
    expect(await h.service.handlers.readSteps({ id: run.id, fromStep: 0, limit: 100 })).toEqual(steps);
    expect(await h.service.handlers.listRuns({})).toHaveLength(1);
  });

  test('a crashed run keeps its crash card, one without a last word is interrupted', async () => {
    const crashed = await running(2);
    h.engines.trainings[0]!.die('SIGKILL');
    const { crash } = await h.reach(crashed.id, 'interrupted');
    const second = await h.start({ name: 'second' });
    (await h.engines.started(1)).step(1);
    await expect.poll(() => h.store.get<{ n: number }>('SELECT count(*) AS n FROM steps')!.n).toBe(3);
    await h.killHost({ loseDatabase: true });
    expect(h.get(crashed.id)).toMatchObject({ state: 'interrupted', crash, step: 2 });
    expect(h.get(second.id)).toMatchObject({
      state: 'interrupted',
      error: { code: 'interrupted' },
      step: 1,
      name: 'second',
    });
  });

  test('what cannot be read is named and stops nothing', async () => {
    const [good, bad] = [await running(1), await h.start({ name: 'bad' })];
    writeFileSync(join(bad.dir, 'run.lock.json'), '{');
    mkdirSync(join(h.home, 'runs', 'something-else'));
    mkdirSync(join(h.home, 'runs', 'gone.removed'));
    await h.killHost({ loseDatabase: true });
    expect((await h.service.handlers.listRuns({})).map(({ id }) => id)).toEqual([good.id]);
    expect(h.warnings).toEqual([expect.stringContaining(bad.dir)]);
    expect(() => statSync(join(h.home, 'runs', 'gone.removed'))).toThrow();
    rmSync(bad.dir, { recursive: true });
  });
});

test('a metrics.jsonl that lost its end costs what it lost and no more', async () => {
  const run = await running(5);
  h.engines.trainings[0]!.die('SIGKILL');
  await h.reach(run.id, 'interrupted');
  truncateSync(join(run.dir, 'metrics.jsonl'), 50);
  await h.service.handlers.resumeRun({ id: run.id });
  (await h.engines.started(1)).finish({ step: 0 });
  expect(await h.reach(run.id, 'completed')).toMatchObject({ attempt: 1 });
});

test('a disk that fills up stops the run with its error and leaves it resumable', async () => {
  const run = await h.start();
  const engine = await h.engines.started(0);
  engine.step(1);
  await expect.poll(() => h.store.get<{ n: number }>('SELECT count(*) AS n FROM steps')!.n).toBe(1);
  const { transaction } = h.store;
  const full = Object.assign(new Error('database or disk is full'), { code: 'ENOSPC' });
  h.store.transaction = () => {
    throw full;
  };
  engine.step(2);
  await expect.poll(() => engine.asked).toEqual(['stop']);
  h.store.transaction = transaction;
  engine.finish({ reason: 'stopped', step: 2 });
  expect(await h.reach(run.id, 'failed')).toMatchObject({
    error: { code: 'disk_full', place: { file: run.dir } },
    step: 2,
  });
  expect(await stepsOf(run)).toHaveLength(2);
  await expect((async () => h.service.handlers.resumeRun({ id: run.id }))()).resolves.toMatchObject({
    state: 'queued',
  });
});

test('runs that were held wait on after a host that ended, in their order; nothing starts by itself', async () => {
  const [a, b] = [await h.start({ name: 'a' }, true), await h.start({ name: 'b' }, true)];
  const job = async (id: string) =>
    (await h.jobs.handlers.listJobs({})).find(({ subjectId, place }) => subjectId === id && place !== null);
  const moved = await job(b.id);
  await h.jobs.handlers.moveJob({ id: moved!.id, place: 1 });
  await h.killHost();
  expect([h.get(a.id).state, h.get(b.id).state]).toEqual(['queued', 'queued']);
  expect([await job(a.id), await job(b.id)]).toMatchObject([
    { place: 2, held: true },
    { place: 1, held: true },
  ]);
  expect(h.engines.trainings).toHaveLength(0);
  await h.jobs.handlers.startQueue({});
  (await h.engines.started(0)).finish();
  await h.reach(b.id, 'completed');
  (await h.engines.started(1)).finish();
  await h.reach(a.id, 'completed');
  await h.killHost();
  expect([h.get(a.id).state, h.get(b.id).state]).toEqual(['completed', 'completed']);
});
