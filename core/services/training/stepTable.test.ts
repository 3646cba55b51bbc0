import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fakeStep } from '../../../tests/support/fakeEngines.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { stepLine } from './metricsLog.ts';
import { newRun } from './newRun.ts';
import type { RunLock } from './runFolder.ts';
import { createRunTable } from './runTable.ts';
import { createStepTable, type StepTable } from './stepTable.ts';

let dir: string;
let store: Store;
let steps: StepTable;
let key: number;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'steps-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  steps = createStepTable(store);
  const lock = {
    id: 'r',
    name: 'r',
    model: { name: 'm' },
    mix: { name: 'x' },
    createdAt: 1,
    totalSteps: 9,
  } as RunLock;
  const config = runConfigSchema.parse({ model: 'm', mix: 'x' });
  key = createRunTable(store, steps).insert(newRun(dir, config, lock), lock).key;
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true });
});

function add(count: number, more: (step: number) => Parameters<typeof fakeStep>[1] = () => ({})): void {
  store.transaction(() => {
    for (let step = 1; step <= count; step++)
      steps.addStep(key, stepLine(fakeStep(step, more(step)), 0, step));
  });
}

const read = (metrics: string[], buckets = 1000, range: { fromStep?: number; toStep?: number } = {}) =>
  steps.readSeries(key, { metrics, numExperts: 2, buckets, ...range });

test('short series come whole', async () => {
  add(3, (step) => ({ loss: step }));
  expect(await read(['loss'])).toEqual([
    { metric: 'loss', steps: [1, 2, 3], values: [1, 2, 3], min: [1, 2, 3], max: [1, 2, 3] },
  ]);
});

test('a step that comes again leaves nothing of what it was', async () => {
  add(2);
  add(1, () => ({ lossBySource: [{ source: 'other', loss: 7, targetTokens: 1 }] }));
  const [first, second] = await steps.readSteps(key, 1, 10);
  expect(first!.lossBySource.map(({ source }) => source)).toEqual(['other']);
  expect(second!.lossBySource.map(({ source }) => source)).toEqual(['a', 'b']);
});

test('a bucket keeps its extremes and ends at its last value', async () => {
  add(100, (step) => ({ loss: step === 42 ? 999 : step === 43 ? -5 : step }));
  const [series] = await read(['loss'], 10);
  expect(series!.steps).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
  expect(series!.values[4]).toBe(50);
  expect([series!.min[4], series!.max[4]]).toEqual([-5, 999]);
  expect([series!.min[0], series!.max[0]]).toEqual([1, 10]);
});

test('a range has buckets of its own', async () => {
  add(100, (step) => ({ loss: step }));
  const [series] = await read(['loss'], 10, { fromStep: 31, toStep: 40 });
  expect(series!.steps).toEqual([31, 32, 33, 34, 35, 36, 37, 38, 39, 40]);
});

test('what was not finite is a gap that hides no neighbour', async () => {
  add(20, (step) => ({ loss: step === 4 ? NaN : step }));
  const [series] = await read(['loss'], 10);
  expect(series!.values[1]).toBeNull();
  expect([series!.min[1], series!.max[1]]).toEqual([3, 3]);
});

test.each([
  ['loss/a', [1.9]],
  ['loss:b', [3.9]],
  ['expertShare:0:1', [0.75]],
  ['expertShare/1/0', [0.5]],
  ['memoryBytes', [1e8]],
  ['loss/none', []],
  ['expertShare:7:0', [null]],
])('metric %s', async (metric, values) => {
  add(1);
  const [series] = await read([metric]);
  expect(series!.values).toEqual(values);
});

test.each(['losss', 'expertShare:0:2', 'expertShare', 'run_key'])('refuses %s', async (metric) => {
  add(1);
  await expect(read([metric])).rejects.toMatchObject({ code: 'bad_option', place: { field: 'metrics' } });
});

test('a run without steps has empty series', async () => {
  expect(await read(['loss'])).toEqual([{ metric: 'loss', steps: [], values: [], min: [], max: [] }]);
});

test('superseding drops what lies past the step, from every table', () => {
  add(5);
  steps.supersede(key, 3);
  for (const table of ['steps', 'step_sources', 'step_arrays'])
    expect(store.get(`SELECT max(step) AS last FROM ${table}`)).toEqual({ last: 3 });
});

test('rows of a step, whose losses may be missing', () => {
  add(1, () => ({ rows: Int32Array.of(70_000, 3), rowLosses: Float32Array.of(NaN, 1.5) }));
  expect(steps.rowsOf(key, 1)).toEqual([
    { row: 70_000, loss: null },
    { row: 3, loss: 1.5 },
  ]);
  expect(steps.rowsOf(key, 2)).toBeNull();
});

test('a long run is read while this thread goes on', async () => {
  add(2000);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const [series] = await read(['loss', 'lr', 'loss/a', 'expertShare:0:0'], 500);
  clearInterval(timer);
  expect(series!.values).toHaveLength(500);
  expect(turns).toBeGreaterThan(0);
});
