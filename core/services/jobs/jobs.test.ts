import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { CaravanError, type ErrorCode } from '../../shared/contract/errors.ts';
import type { EmitEvent } from '../../shared/contract/service.ts';
import type { Job } from '../../shared/job/job.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobContext, type JobsService, type JobTask } from './index.ts';

let dir: string;
let store: Store;
let told: { name: string; payload: unknown }[];
let now: number;
let service: JobsService;
const emit: EmitEvent = (name, payload) => void told.push({ name, payload });

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'jobs-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  told = [];
  now = 1000;
  service = createJobsService({ store, emit, clock: { now: () => now } });
});
afterEach(async () => {
  vi.useRealTimers();
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

/** A job that ends when the test says so. */
function held(more: Partial<JobTask> = {}) {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const started = Promise.withResolvers<JobContext>();
  const task: JobTask = {
    kind: 'import',
    title: 'a job',
    run(context) {
      started.resolve(context);
      return promise;
    },
    ...more,
  };
  return { task, finish: () => resolve(), fail: (error: Error) => reject(error), started: started.promise };
}

const stateOf = async (id: string) => (await service.handlers.getJob({ id })).state;

test('runs jobs of a lane one after the other and other lanes beside them', async () => {
  const [first, second, beside] = [
    held({ lane: 'train' }),
    held({ lane: 'train' }),
    held({ lane: 'curate' }),
  ];
  const a = service.jobs.submit(first.task);
  const b = service.jobs.submit(second.task);
  const c = service.jobs.submit(beside.task);
  await Promise.all([first.started, beside.started]);
  expect([await stateOf(a.id), await stateOf(b.id), await stateOf(c.id)]).toEqual([
    'running',
    'queued',
    'running',
  ]);
  expect(service.jobs.isLaneBusy('train')).toBe(true);
  first.finish();
  await second.started;
  expect([await stateOf(a.id), await stateOf(b.id)]).toEqual(['completed', 'running']);
  second.finish();
  beside.finish();
  await Promise.all([service.jobs.whenEnded(b.id), service.jobs.whenEnded(c.id)]);
  expect(service.jobs.isLaneBusy('train')).toBe(false);
});

test('what a job needs, waiting or running, is not removed under it', async () => {
  const [first, second] = [
    held({ lane: 'l', title: 'first', kind: 'train', needs: ['mix /m'] }),
    held({ lane: 'l', title: 'second', kind: 'mix' }),
  ];
  const a = service.jobs.submit(first.task);
  const b = service.jobs.submit({ ...second.task, needs: ['mix /m'] });
  await first.started;
  const check = () => service.jobs.checkUnneeded('mix /m', "mix 'blend'");
  expect(check).toThrow("mix 'blend' is in use by run 'first' (running), job 'second' (queued)");
  expect(check).toThrow(expect.objectContaining({ code: 'wrong_state' }) as Error);
  first.finish();
  const context = await second.started;
  expect(check).toThrow("mix 'blend' is in use by job 'second' (running)");
  context.need('source s');
  expect(() => service.jobs.checkUnneeded('source s', 'a source')).toThrow('second');
  expect(() => service.jobs.checkUnneeded('source t', 'a source')).not.toThrow();
  second.finish();
  await Promise.all([service.jobs.whenEnded(a.id), service.jobs.whenEnded(b.id)]);
  expect(check).not.toThrow();
});

test.each<[ErrorCode, Job['state']]>([
  ['cancelled', 'cancelled'],
  ['interrupted', 'interrupted'],
  ['engine_died', 'interrupted'],
  ['no_rows', 'failed'],
  ['internal', 'failed'],
])('a job that throws %s ends as %s and keeps the error', async (code, state) => {
  const { id } = service.jobs.submit({
    ...held().task,
    run: () => Promise.reject(new CaravanError(code, 'why', { place: { field: 'x' }, mend: 'do' })),
  });
  const job = await service.jobs.whenEnded(id);
  expect(job).toMatchObject({ state, error: { code, message: 'why', place: { field: 'x' }, mend: 'do' } });
  expect(await service.handlers.getJob({ id })).toEqual(job);
});

describe('each call in each state', () => {
  const states = ['queued', 'running', 'paused', 'stopping', 'completed'] as const;
  const calls = ['cancelJob', 'pauseJob', 'resumeJob'] as const;
  const allowed: Record<(typeof states)[number], Partial<Record<(typeof calls)[number], Job['state']>>> = {
    queued: { cancelJob: 'cancelled' },
    running: { cancelJob: 'stopping', pauseJob: 'paused' },
    paused: { cancelJob: 'stopping', resumeJob: 'running' },
    stopping: {},
    completed: {},
  };
  const pausing = { pause: vi.fn(), resume: vi.fn() };

  async function bring(state: (typeof states)[number]): Promise<{ id: string; finish: () => void }> {
    const ahead = held({ lane: 'a' });
    if (state === 'queued') service.jobs.submit(ahead.task);
    const one = held({ lane: 'a', pausing });
    const { id } = service.jobs.submit(one.task);
    if (state !== 'queued') await one.started;
    if (state === 'paused') await service.handlers.pauseJob({ id });
    if (state === 'stopping') await service.handlers.cancelJob({ id });
    if (state === 'completed') {
      one.finish();
      await service.jobs.whenEnded(id);
    }
    return {
      id,
      finish() {
        ahead.finish();
        one.finish();
      },
    };
  }

  test.each(states.flatMap((state) => calls.map((call) => [state, call] as const)))(
    '%s: %s',
    async (state, call) => {
      const { id, finish } = await bring(state);
      expect(await stateOf(id)).toBe(state);
      const next = allowed[state][call];
      const attempt = async () => (await service.handlers[call]({ id })).state;
      if (next) expect(await attempt()).toBe(next);
      else await expect(attempt()).rejects.toMatchObject({ code: 'wrong_state' });
      finish();
    },
  );
});

test('a job that changes its lane waits for its turn there, before what has not begun', async () => {
  const [curating, queued] = [held({ lane: 'curation' }), held({ lane: 'curation' })];
  const order: string[] = [];
  const download = (name: string): JobTask => ({
    kind: 'import',
    title: name,
    lane: 'hub',
    pausing: { pause: () => undefined, resume: () => undefined },
    async run(context) {
      order.push(`${name} downloads`);
      context.endPausing();
      await context.enterLane('curation');
      order.push(`${name} imports`);
    },
  });
  service.jobs.submit(curating.task);
  const waiting = service.jobs.submit(queued.task);
  const [a, b] = [service.jobs.submit(download('a')), service.jobs.submit(download('b'))];
  await curating.started;
  await vi.waitFor(() => expect(order).toEqual(['a downloads', 'b downloads']));
  expect(service.jobs.isLaneBusy('hub')).toBe(false);
  expect((await service.handlers.getJob({ id: a.id })).canPause).toBe(false);
  await expect((async () => service.handlers.pauseJob({ id: a.id }))()).rejects.toThrow(/cannot pause/);
  service.jobs.cancel(b.id);
  expect((await service.jobs.whenEnded(b.id)).state).toBe('cancelled');
  curating.finish();
  await service.jobs.whenEnded(a.id);
  expect(order.at(-1)).toBe('a imports');
  await queued.started;
  queued.finish();
  await service.jobs.whenEnded(waiting.id);
});

test('cancelling aborts the signal of a running job, and drops a queued one without running it', async () => {
  const ran = vi.fn(() => Promise.resolve());
  const dropped = vi.fn();
  const first = held({
    lane: 'a',
    run: ({ signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new CaravanError('cancelled', 'stopped'))),
      ),
  });
  const a = service.jobs.submit(first.task);
  const b = service.jobs.submit({ ...held().task, lane: 'a', run: ran, onDropped: dropped });
  await Promise.resolve();
  service.jobs.cancel(b.id);
  expect(dropped).toHaveBeenCalledOnce();
  service.jobs.cancel(a.id);
  expect((await service.jobs.whenEnded(a.id)).state).toBe('cancelled');
  expect(await stateOf(b.id)).toBe('cancelled');
  expect(ran).not.toHaveBeenCalled();
});

test('tells progress ten times a second at most, the last value always', async () => {
  vi.useFakeTimers();
  const one = held();
  service.jobs.submit(one.task);
  const context = await one.started;
  told = [];
  for (let i = 0; i <= 1000; i++) {
    now += 1;
    context.progress({ done: i, total: 1000, unit: 'rows', stage: 'reading' });
    await vi.advanceTimersByTimeAsync(1);
  }
  await vi.advanceTimersByTimeAsync(200);
  const changes = told
    .filter(({ name }) => name === 'jobChanged')
    .map(({ payload }) => (payload as Job).progress!);
  expect(changes.length).toBeGreaterThan(5);
  expect(changes.length).toBeLessThanOrEqual(12);
  expect(changes.at(-1)).toMatchObject({ done: 1000, total: 1000, etaMs: 0 });
  expect(changes.at(-1)!.rate).toBeCloseTo(1000, 0);
  one.finish();
});

test('keeps its log and its subject', async () => {
  const { id } = service.jobs.submit({
    ...held().task,
    run(context) {
      context.log('one');
      context.log('two');
      context.setSubject('source-1');
      return Promise.resolve();
    },
  });
  expect(await service.jobs.whenEnded(id)).toMatchObject({ subjectId: 'source-1', state: 'completed' });
  expect(await service.handlers.getJobLog({ id })).toEqual({ lines: ['one', 'two'] });
  expect(
    told.filter(({ name }) => name === 'jobLogged').map(({ payload }) => (payload as { line: string }).line),
  ).toEqual(['one', 'two']);
});

test('a new host finds what was unfinished interrupted', async () => {
  const [running, queued] = [held({ lane: 'a' }), held({ lane: 'a' })];
  const a = service.jobs.submit(running.task);
  const b = service.jobs.submit(queued.task);
  await running.started;
  const after = createJobsService({ store, emit, clock: { now: () => 5000 } });
  for (const id of [a.id, b.id])
    expect(await after.handlers.getJob({ id })).toMatchObject({
      state: 'interrupted',
      endedAt: 5000,
      error: { code: 'interrupted' },
    });
  expect(await after.handlers.listJobs({})).toHaveLength(2);
});

test('closing ends what runs and drops what waits', async () => {
  const dropped = vi.fn();
  const running = held({
    lane: 'a',
    run: ({ signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new CaravanError('cancelled', 'stopped'))),
      ),
  });
  const a = service.jobs.submit(running.task);
  const b = service.jobs.submit({ ...held().task, lane: 'a', onDropped: dropped });
  await Promise.resolve();
  await service.close();
  expect([await stateOf(a.id), await stateOf(b.id)]).toEqual(['interrupted', 'interrupted']);
  expect(dropped).toHaveBeenCalledOnce();
  expect(() => service.jobs.submit(held().task)).toThrow(/closing/);
});

test('a database that takes no writes hides no end from who waits', async () => {
  const one = held();
  const { id } = service.jobs.submit(one.task);
  const context = await one.started;
  const { run } = store;
  store.run = () => {
    throw new CaravanError('disk_full', 'full');
  };
  context.log('still told');
  one.fail(new CaravanError('disk_full', 'the disk is full'));
  expect(await service.jobs.whenEnded(id)).toMatchObject({ state: 'failed', error: { code: 'disk_full' } });
  expect(told).toContainEqual({ name: 'jobLogged', payload: { id, line: 'still told' } });
  store.run = run;
});

test('names a job that is not there', async () => {
  await expect((async () => service.handlers.getJob({ id: 'x' }))()).rejects.toMatchObject({
    code: 'not_found',
  });
});

describe('the order of a queue', () => {
  const places = async () =>
    (await service.handlers.listJobs({}))
      .filter(({ place }) => place !== null)
      .sort((a, b) => a.place! - b.place!)
      .map(({ title, place, held: isHeld }) => `${place} ${title}${isHeld ? ' held' : ''}`);

  test('those that wait have places, and are moved to others', async () => {
    const [running, ...waiting] = ['a', 'b', 'c', 'd'].map((title) => held({ lane: 'l', title }));
    service.jobs.submit(running!.task);
    const [b, c, d] = waiting.map(({ task }) => service.jobs.submit(task));
    await running!.started;
    expect(await places()).toEqual(['1 b', '2 c', '3 d']);
    await service.handlers.moveJob({ id: d!.id, place: 1 });
    expect(await places()).toEqual(['1 d', '2 b', '3 c']);
    await service.handlers.moveJob({ id: d!.id, place: 99 });
    await service.handlers.moveJob({ id: c!.id, place: 1 });
    expect(await places()).toEqual(['1 c', '2 b', '3 d']);
    expect(told).toContainEqual({
      name: 'jobChanged',
      payload: expect.objectContaining({ id: c!.id, place: 1 }) as Job,
    });
    await service.handlers.cancelJob({ id: b!.id });
    expect(await places()).toEqual(['1 c', '2 d']);
    running!.finish();
    await waiting[1]!.started;
    expect(await places()).toEqual(['1 d']);
    await expect((async () => service.handlers.moveJob({ id: c!.id, place: 1 }))()).rejects.toMatchObject({
      code: 'wrong_state',
    });
  });

  test('what is held waits until it is started, while others pass it', async () => {
    const [night, day] = [held({ lane: 'l', title: 'night', held: true }), held({ lane: 'l', title: 'day' })];
    const one = service.jobs.submit(night.task);
    expect(service.jobs.isLaneBusy('l')).toBe(false);
    service.jobs.submit(day.task);
    await day.started;
    expect(await places()).toEqual(['1 night held']);
    day.finish();
    await vi.waitFor(async () => expect(await places()).toEqual(['1 night held']));
    await service.handlers.startQueue({});
    await night.started;
    expect(await stateOf(one.id)).toBe('running');
    night.finish();
  });

  test('held jobs start at their time, in their order; a time that has passed is refused', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    service = createJobsService({ store, emit, clock: { now: () => now } });
    const [first, second] = ['first', 'second'].map((title) => held({ lane: 'l', title, held: true }));
    service.jobs.submit(first!.task);
    const b = service.jobs.submit(second!.task);
    await service.handlers.moveJob({ id: b.id, place: 1 });
    await expect((async () => service.handlers.setQueue({ startsAt: now }))()).rejects.toMatchObject({
      code: 'bad_option',
      place: { field: 'startsAt' },
    });
    await service.handlers.setQueue({ startsAt: now + 5000 });
    vi.advanceTimersByTime(2000);
    expect(await places()).toEqual(['1 second held', '2 first held']);
    now += 5000;
    vi.advanceTimersByTime(2000);
    await second!.started;
    expect(await places()).toEqual(['1 first']);
    expect(await service.handlers.getQueue({})).toEqual({ startsAt: null });
    expect(told.filter(({ name }) => name === 'queueChanged').map(({ payload }) => payload)).toEqual([
      { startsAt: now },
      { startsAt: null },
    ]);
    second!.finish();
    await first!.started;
    first!.finish();
  });
});
