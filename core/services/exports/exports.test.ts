import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createFakeEngines, type FakeEngines } from '../../../tests/support/fakeEngines.ts';
import { calls } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Job } from '../../shared/job/job.ts';
import { exportLayouts, type ExportRecord } from '../../shared/model/export.ts';
import type { Model } from '../../shared/model/model.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import type { Models, ResolvedModel } from '../models/index.ts';
import { createExportsService } from './createExportsService.ts';
import type { ExportsService } from './exportTypes.ts';

let dir: string;
let store: Store;
let jobs: JobsService;
let engines: FakeEngines;
let service: ExportsService;
let identity: string;
let resolved: ResolvedModel;
let told: string[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'exports-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 1000 });
  told = [];
  const emit = (name: string) => void told.push(name);
  jobs = createJobsService({ store, emit });
  engines = createFakeEngines();
  identity = 'same';
  resolved = {
    name: 'camel',
    model: null,
    dir: '/models/tiny',
    tokenizerPath: '/models/tiny/tokenizer.json',
    tokens: { bos: null, eos: '</s>', specials: [], chatTemplate: null },
    stopIds: [2],
    trained: {
      runId: 'r1',
      runName: 'camel',
      modelDir: '/models/tiny',
      baseIdentity: 'same',
      checkpointDir: '/runs/r1/checkpoints/step-000012',
      config: runConfigSchema.parse({ model: 'tiny', mix: 'm', method: 'lora', baseDtype: 'nf4' }),
      template: 'camelidae',
    },
  };
  const models = {
    resolve: () => Promise.resolve(resolved),
    identityOf: () => Promise.resolve(identity),
  } as unknown as Models;
  service = createExportsService({ store, emit, jobs: jobs.jobs, models, engines });
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

const comparison = {
  tokens: 9,
  maxDifference: 0,
  meanDifference: 0,
  kl: 0,
  maxKl: 0,
  sameChoice: 9,
  decided: 9,
  decidedOtherwise: 0,
};
const record = (passed = true): ExportRecord => ({
  schema: 'caravan-export-1',
  run: { id: 'r1', name: 'camel', method: 'lora', step: 12 },
  base: { name: '/models/tiny', identity: 'same' },
  layout: 'merged',
  type: 'bf16',
  mergeInto: 'trained',
  template: 'camelidae',
  files: [{ name: 'model.safetensors', bytes: 10 }],
  notes: [],
  parity: {
    passed,
    limit: 'none',
    reference: 'trained',
    logits: comparison,
    loss: null,
    tensors: {
      tensors: 1,
      elements: 1,
      copied: 1,
      merged: 0,
      quantised: 0,
      maxDifference: 0,
      maxTensor: 'a',
      wrong: [],
    },
    prompts: { checked: 6, different: 0 },
    unusedExperts: [],
  },
});
const ask = (more: object = {}) =>
  Promise.resolve(
    service.handlers.exportRun(
      calls.exportRun.params.parse({ run: 'camel', layout: 'merged', outDir: join(dir, 'out'), ...more }),
    ),
  );
const ended = (job: Job) => jobs.jobs.whenEnded(job.id);

test('asks the engine for what the run was, and keeps what it found', async () => {
  let asked: unknown;
  engines.answers.export = (request, onProgress) => {
    asked = request;
    onProgress('writing', 5, 10);
    return Promise.resolve(record());
  };
  const job = await ended(await ask());
  expect(job).toMatchObject({ state: 'completed', kind: 'export', error: null });
  expect(asked).toMatchObject({
    model: { baseDtype: 'nf4', doubleQuant: true, checkpointDir: '/runs/r1/checkpoints/step-000012' },
    layout: 'merged',
    type: 'bf16',
    mergeInto: 'trained',
    run: { id: 'r1', step: 12 },
  });
  const [kept] = await service.handlers.listExports({});
  expect(kept).toMatchObject({ id: job.subjectId, dir: join(dir, 'out'), layout: 'merged' });
  expect(await service.handlers.getExport({ id: job.subjectId! })).toEqual(kept);
  expect(told).toContain('exportsChanged');
});

test('an export to the same place again is one export; one that differs is kept and says so', async () => {
  engines.answers.export = () => Promise.resolve(record());
  await ended(await ask());
  engines.answers.export = () => Promise.resolve(record(false));
  expect(await ended(await ask())).toMatchObject({ state: 'completed' });
  const kept = await service.handlers.listExports({});
  expect(kept.map(({ parity }) => parity.passed)).toEqual([false]);
});

test('a model as it came is exported as ONNX, and as nothing else', async () => {
  resolved = { ...resolved, name: 'tiny', trained: null, model: { storedDtypes: ['BF16'] } as Model };
  let asked: unknown;
  engines.answers.export = (request) => {
    asked = request;
    return Promise.resolve({ ...record(), run: null, layout: 'onnx' });
  };
  expect(await ended(await ask({ layout: 'onnx' }))).toMatchObject({
    state: 'completed',
    title: 'export tiny as onnx',
  });
  expect(asked).toMatchObject({
    model: { checkpointDir: '', baseDtype: 'bf16', modelDir: '/models/tiny' },
    type: 'f16',
    template: 'camelidae',
    run: null,
  });
  engines.answers.offerExports = (request) =>
    Promise.resolve(request.asked.map(() => ({ bytes: 1, tensors: 1, refusal: null })));
  const offered = await service.handlers.offerExports({ run: 'tiny', mergeInto: 'trained' });
  expect(offered.run).toBeNull();
  expect(offered.formats.filter(({ refusal }) => refusal === null).map(({ layout }) => layout)).toEqual([
    'onnx',
  ]);
  resolved = { ...resolved, model: { storedDtypes: ['ONNX int4'] } as Model };
  await expect(ask({ layout: 'onnx' })).rejects.toThrow('ONNX export already');
});

test('cancelling reaches the engine, and nothing is kept', async () => {
  const begun = Promise.withResolvers<void>();
  engines.answers.export = (_request, _onProgress, signal) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(new CaravanError('cancelled', 'cancelled')));
      begun.resolve();
    });
  const job = await ask();
  await begun.promise;
  jobs.jobs.cancel(job.id);
  expect(await ended(job)).toMatchObject({ state: 'cancelled' });
  expect(await service.handlers.listExports({})).toEqual([]);
});

test('a base that is another one by now is refused', async () => {
  identity = 'other';
  expect(await ended(await ask())).toMatchObject({ state: 'failed', error: { code: 'model_mismatch' } });
});

test.each([
  ['a plain model', () => (resolved = { ...resolved, trained: null }), {}, 'not a run'],
  ['a relative folder', () => undefined, { outDir: 'out' }, 'absolute'],
  ['a type for PEFT', () => undefined, { layout: 'peft', type: 'f32' }, 'keeps the type'],
  [
    'a base to merge an adapter into',
    () => undefined,
    { layout: 'adapter', mergeInto: 'original' },
    'merges nothing',
  ],
  [
    'a folder from a GGUF base',
    () => (resolved = { ...resolved, trained: { ...resolved.trained!, modelDir: '/models/tiny.gguf' } }),
    {},
    'GGUF file',
  ],
])('refuses %s at once', async (_, arrange, more, words) => {
  arrange();
  await expect(ask(more)).rejects.toThrow(words);
});

test('reads the report beside any export, and says what a folder without one is', async () => {
  writeFileSync(join(dir, 'export.json'), JSON.stringify(record()));
  expect(await service.handlers.readExport({ dir })).toEqual(record());
  writeFileSync(join(dir, 'export.json'), '{"schema": 1}');
  await expect(service.handlers.readExport({ dir })).rejects.toMatchObject({ code: 'bad_file' });
  await expect(service.handlers.readExport({ dir: join(dir, 'none') })).rejects.toMatchObject({
    code: 'not_found',
  });
});

test('offers every format: what it takes, why the engine refuses it, and what the base forbids', async () => {
  resolved = { ...resolved, dir: '/models/tiny.gguf' };
  resolved.trained!.modelDir = '/models/tiny.gguf';
  let asked: unknown;
  engines.answers.offerExports = (request) => {
    asked = request;
    return Promise.resolve(
      request.asked.map(({ layout }) =>
        layout === 'camelidae'
          ? {
              bytes: null,
              tensors: null,
              refusal: { code: 'bad_option' as const, message: 'no experts', mend: 'Use merged' },
            }
          : { bytes: 100, tensors: 3, refusal: null },
      ),
    );
  };
  const offered = await service.handlers.offerExports({
    run: 'camel',
    type: 'q8_0',
    mergeInto: 'original',
    outDir: join(dir, 'a', 'new', 'folder'),
  });
  expect(asked).toMatchObject({
    mergeInto: 'original',
    model: { checkpointDir: '/runs/r1/checkpoints/step-000012' },
  });
  expect(offered.run).toEqual({ id: 'r1', name: 'camel', method: 'lora', step: 12 });
  expect(offered.place).toMatchObject({ problem: null });
  const of = (layout: string) => offered.formats.find((one) => one.layout === layout)!;
  expect(offered.formats.map(({ layout }) => layout)).toEqual([...exportLayouts]);
  expect(of('gguf')).toMatchObject({ type: 'q8_0', bytes: 100, refusal: null });
  expect(of('peft')).toMatchObject({ type: null, bytes: 100, refusal: null });
  expect(of('camelidae').refusal).toMatchObject({ message: 'no experts' });
  expect(of('merged').refusal?.message).toContain('GGUF file');
});

test('a destination that is taken is said before anything is written', async () => {
  engines.answers.offerExports = (request) =>
    Promise.resolve(request.asked.map(() => ({ bytes: 1, tensors: 1, refusal: null })));
  const place = async (outDir: string) =>
    (await service.handlers.offerExports({ run: 'camel', mergeInto: 'trained', outDir })).place;
  writeFileSync(join(dir, 'taken'), '');
  expect((await place(join(dir, 'taken')))?.problem?.message).toContain('already');
  expect((await place('relative'))?.problem?.message).toContain('no absolute path');
  expect((await place(join(dir, 'free')))?.problem).toBeNull();
});

test('lists leave out the tensors, which one report has', async () => {
  const whole = record();
  whole.parity.tensors.each = [{ name: 'a', rule: 'copied', elements: 1, difference: 0, wrong: 0 }];
  engines.answers.export = () => Promise.resolve(whole);
  const job = await ended(await ask());
  const [listed] = await service.handlers.listExports({});
  expect(listed!.parity.tensors.each).toBeUndefined();
  expect((await service.handlers.getExport({ id: job.subjectId! })).parity.tensors.each).toEqual(
    whole.parity.tensors.each,
  );
});
