import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fakeStep } from '../../../tests/support/fakeEngines.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { index } from './createRunRecorder.ts';
import { stepLine, type StepLine } from './metricsLog.ts';
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
  const lines = Array.from({ length: count }, (_, at) => stepLine(fakeStep(at + 1, more(at + 1)), 0, at + 1));
  store.transaction(() => index(steps, key, lines));
}

const read = (metrics: string[], buckets = 1000, range: { fromStep?: number; toStep?: number } = {}) =>
  steps.readSeries(key, { metrics, numExperts: 2, buckets, ...range });

test('short series come whole', async () => {
  add(3, (step) => ({ loss: step }));
  expect(await read(['loss'])).toEqual([
    {
      metric: 'loss',
      steps: [1, 2, 3],
      values: [1, 2, 3],
      min: [1, 2, 3],
      max: [1, 2, 3],
      nonFinite: [0, 0, 0],
    },
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
  expect(series!.nonFinite).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
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
  expect(await read(['loss'])).toEqual([
    { metric: 'loss', steps: [], values: [], min: [], max: [], nonFinite: [] },
  ]);
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

/** What a series must say, from the steps themselves. */
function bucketed(lines: StepLine[], value: (line: StepLine) => number | null, wide: number) {
  return [...Map.groupBy(lines, ({ step }) => Math.floor((step - 1) / wide)).values()].map((bucket) => {
    const finite = bucket.map(value).filter((one) => one !== null);
    return {
      step: bucket.at(-1)!.step,
      value: value(bucket.at(-1)!),
      min: finite.length > 0 ? Math.min(...finite) : null,
      max: finite.length > 0 ? Math.max(...finite) : null,
      nonFinite: bucket.length - finite.length,
    };
  });
}

test('curves from levels say what the steps say, at every width, through resumes', async () => {
  let lines: StepLine[] = [];
  const write = (from: number, to: number, batch: number) => {
    for (let first = from; first <= to; first += batch) {
      const some: StepLine[] = [];
      for (let step = first; step < Math.min(first + batch, to + 1); step++) {
        const loss = step % 97 === 0 ? NaN : Math.sin(step * 12.9898) * 3 + (step === 2500 ? 1e6 : 0);
        // Not every step has rows of every source.
        const lossBySource = step % 3 === 0 ? [{ source: 'b/c', loss: step, targetTokens: 1 }] : [];
        some.push(stepLine(fakeStep(step, { loss, lossBySource, tokens: step, stepMs: 2 }), 0, step));
      }
      lines = [...lines.filter(({ step }) => step < first), ...some];
      store.transaction(() => index(steps, key, some), { durable: false });
    }
  };
  write(1, 300, 7);
  write(301, 3000, 331);
  store.transaction(() => index(steps, key, [{ type: 'resume', attempt: 1, step: 2600, at: 1 }]));
  lines = lines.filter(({ step }) => step <= 2600);
  write(2601, 5003, 211);
  const source = lines.filter(({ lossBySource }) => lossBySource.length > 0);
  for (const [buckets, wide] of [
    [5003, 1],
    [500, 11],
    [250, 32],
    [40, 128],
    [10, 512],
    [1, 8192],
  ] as const) {
    const [loss, ofSource, tokens, ms] = await read(['loss', 'loss/b/c', 'tokensSeen', 'trainedMs'], buckets);
    const expected = bucketed(lines, (line) => line.loss, wide);
    expect(loss).toEqual({
      metric: 'loss',
      steps: expected.map(({ step }) => step),
      values: expected.map(({ value }) => value),
      min: expected.map(({ min }) => min),
      max: expected.map(({ max }) => max),
      nonFinite: expected.map(({ nonFinite }) => nonFinite),
    });
    expect(ofSource!.max).toEqual(
      bucketed(source, (line) => line.lossBySource[0]!.loss, wide).map(({ max }) => max),
    );
    expect(tokens!.values.at(-1)).toBe((5003 * 5004) / 2);
    expect(ms!.values.at(-1)).toBe(2 * 5003);
  }
  // A part of it has the same buckets as the whole.
  const [whole] = await read(['loss'], 40);
  const [part] = await read(['loss'], 10, { fromStep: 1700, toStep: 2900 });
  expect(part!.steps.length).toBeGreaterThan(8);
  for (const [at, step] of part!.steps.entries())
    expect(part!.max[at]).toBe(whole!.max[whole!.steps.indexOf(step)]);
});

test('a run from before there were levels gets them', async () => {
  store.transaction(() => {
    for (let step = 1; step <= 600; step++)
      steps.addStep(key, stepLine(fakeStep(step, { loss: step === 321 ? 50 : 1 }), 0, step));
  });
  expect((await read(['loss'], 20))[0]!.steps).toEqual([]);
  expect(steps.peakMemory(key)).toBeNull();
  expect(steps.fillBuckets(key)).toBe(true);
  expect((await read(['loss'], 20))[0]!.max).toContain(50);
  expect(steps.peakMemory(key)).toBe(1e8);
});
