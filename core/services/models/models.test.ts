import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createFakeData,
  tinyModelSummary,
  tinyTokenizer,
  type FakeData,
} from '../../../tests/support/fakeData.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { modelSchema } from '../../shared/model/model.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import { createModelsService, type ModelsService, type TrainedModel } from './index.ts';

let dir: string;
let store: Store;
let data: FakeData;
let jobs: JobsService;
let service: ModelsService;
let events: string[];
let runs: Map<string, TrainedModel>;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'models-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  events = [];
  runs = new Map();
  data = createFakeData({
    inspectModel: () => tinyModelSummary,
    readTokenizer: () => tinyTokenizer,
    hashModel: ({ dir: model }) => ({ identity: `identity of ${basename(model)}` }),
    hashFile: ({ path }) => ({ hash: `hash of ${basename(path)}` }),
    tokenize: ({ texts }) => ({ ids: texts.map((text) => [text.length]) }),
  });
  jobs = createJobsService({ store, emit: () => undefined });
  service = createModelsService({
    store,
    data,
    jobs: jobs.jobs,
    emit: (name) => void events.push(name),
    trainedModel: (ref) => Promise.resolve(runs.get(ref) ?? null),
  });
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

function modelFolder(name: string): string {
  const folder = join(dir, name);
  mkdirSync(folder);
  for (const file of ['config.json', 'tokenizer.json', 'model.safetensors'])
    writeFileSync(join(folder, file), name);
  return folder;
}

async function add(path: string, name?: string) {
  const job = await service.handlers.addModel({ path, ...(name !== undefined && { name }) });
  return jobs.jobs.whenEnded(job.id);
}

test('adds a folder with its summary, tokens and identity', async () => {
  const folder = modelFolder('tiny');
  const job = await add(folder);
  expect(job.state).toBe('completed');
  const model = await service.handlers.getModel({ id: job.subjectId! });
  expect(modelSchema.parse(model)).toMatchObject({
    name: 'tiny',
    dir: folder,
    bosToken: '<s>',
    eosToken: '</s>',
    hasChatTemplate: false,
    identity: 'identity of tiny',
    parameters: { total: 80448 },
  });
  expect(await service.handlers.listModels({})).toEqual([model]);
  expect(events).toEqual(['modelsChanged']);
});

test('adding the same folder again keeps its id; another folder of that name gets a number', async () => {
  const folder = modelFolder('tiny');
  const first = await add(folder);
  const again = await add(folder);
  expect(again.subjectId).toBe(first.subjectId);
  mkdirSync(join(dir, 'other'));
  const other = join(dir, 'other', 'tiny');
  mkdirSync(other);
  writeFileSync(join(other, 'tokenizer.json'), '');
  const job = await add(other);
  expect((await service.handlers.getModel({ id: job.subjectId! })).name).toBe('tiny-2');
  await expect(
    (async () => service.handlers.addModel({ path: modelFolder('third'), name: 'tiny' }))(),
  ).rejects.toMatchObject({
    code: 'name_taken',
  });
});

test('a job for what is no model folder fails with the place and the mend', async () => {
  expect(await add(join(dir, 'nowhere'))).toMatchObject({
    state: 'failed',
    error: {
      code: 'not_found',
      place: { file: join(dir, 'nowhere') },
      mend: expect.stringContaining('config.json'),
    },
  });
  data.answers.inspectModel = () => {
    throw new CaravanError('unsupported_architecture', 'GPT2', { place: { field: 'architectures' } });
  };
  expect(await add(modelFolder('gpt'))).toMatchObject({
    state: 'failed',
    error: { code: 'unsupported_architecture' },
  });
});

test.each(['a/b', 'run:x', ' x', ''])('refuses the name %j', async (name) => {
  await expect((async () => service.handlers.addModel({ path: '/x', name }))()).rejects.toMatchObject({
    code: 'bad_option',
  });
});

test('hashes a model once, and again when a file changed', async () => {
  const folder = modelFolder('tiny');
  const hashed = () => data.asked.filter(({ name }) => name === 'hashModel').length;
  await service.models.identityOf(folder);
  await service.models.identityOf(folder);
  expect(hashed()).toBe(1);
  writeFileSync(join(folder, 'model.safetensors'), 'other weights');
  await service.models.identityOf(folder);
  expect(hashed()).toBe(2);
  expect(await service.models.tokenizerHash(join(folder, 'tokenizer.json'))).toBe('hash of tokenizer.json');
});

describe('a reference', () => {
  function trained(modelDir: string): TrainedModel {
    return {
      runId: 'r1',
      runName: 'first',
      modelDir,
      baseIdentity: null,
      checkpointDir: '/runs/r1/checkpoints/step-000010',
      config: runConfigSchema.parse({ model: 'tiny', mix: 'mix' }),
      template: 'camelidae',
    };
  }

  test('to a name in the library', async () => {
    const folder = modelFolder('tiny');
    await add(folder, 'small');
    expect(await service.models.resolve('small')).toMatchObject({
      name: 'small',
      dir: folder,
      tokenizerPath: join(folder, 'tokenizer.json'),
      stopIds: [2],
      tokens: { eos: '</s>' },
      trained: null,
    });
  });

  test.each(['run:first', 'first'])('to a run: %s', async (ref) => {
    const folder = modelFolder('tiny');
    runs.set('first', trained(folder));
    expect(await service.models.resolve(ref)).toMatchObject({
      name: 'first',
      dir: folder,
      trained: { checkpointDir: '/runs/r1/checkpoints/step-000010' },
    });
  });

  test('to the folder of a checkpoint', async () => {
    const checkpoint = join(dir, 'step-000010');
    mkdirSync(checkpoint);
    runs.set(checkpoint, trained(modelFolder('tiny')));
    expect((await service.models.resolve(checkpoint)).trained?.runId).toBe('r1');
  });

  test('to a folder with nothing but tokenizer.json serves tokenize', async () => {
    const folder = join(dir, 'vocabulary');
    mkdirSync(folder);
    writeFileSync(join(folder, 'tokenizer.json'), '{}');
    expect(await service.handlers.tokenize({ model: folder, texts: ['abc', ''] })).toEqual({
      ids: [[3], [0]],
    });
    expect(data.asked.at(-1)).toMatchObject({
      name: 'tokenize',
      params: { tokenizerPath: join(folder, 'tokenizer.json') },
    });
  });

  test.each([
    ['nothing', 'not_found'],
    ['run:nothing', 'not_found'],
    ['/no/such/folder', 'not_found'],
  ])('to nothing: %s', async (ref, code) => {
    await expect(service.models.resolve(ref)).rejects.toMatchObject({ code });
  });

  test('to a GGUF file, which is its own tokenizer, and to its run', async () => {
    const file = join(dir, 'Tiny.Q8_0.gguf');
    writeFileSync(file, 'GGUF');
    expect(await service.models.resolve(file)).toMatchObject({
      name: 'Tiny.Q8_0',
      dir: file,
      tokenizerPath: file,
      model: null,
    });
    expect(await service.models.identityOf(file)).toBe('identity of Tiny.Q8_0.gguf');
    const job = await add(file);
    expect(await service.handlers.getModel({ id: job.subjectId! })).toMatchObject({
      name: 'Tiny.Q8_0',
      dir: file,
      identity: 'identity of Tiny.Q8_0.gguf',
    });
    rmSync(file);
    await expect(service.models.resolve('Tiny.Q8_0')).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('the file of model'),
    });
  });

  test('to a file that is no model says so', async () => {
    const folder = modelFolder('tiny');
    await expect(service.models.resolve(join(folder, 'model.safetensors'))).rejects.toMatchObject({
      code: 'bad_file',
    });
  });

  test('to a library model whose folder is gone says so', async () => {
    const folder = modelFolder('tiny');
    await add(folder);
    rmSync(folder, { recursive: true });
    await expect(service.models.resolve('tiny')).rejects.toMatchObject({
      code: 'not_found',
      place: { file: folder },
    });
  });
});

test('inspects a folder without adding it, and removing leaves the files', async () => {
  const folder = modelFolder('tiny');
  expect(await service.handlers.inspectModel({ model: folder })).toMatchObject({
    name: 'tiny',
    identity: null,
  });
  const job = await add(folder);
  const run = jobs.jobs.submit({
    kind: 'train',
    title: 'tuned',
    needs: [`model ${folder}`],
    run: ({ signal }) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
  });
  expect(() => service.handlers.removeModel({ id: job.subjectId! })).toThrow(
    "model 'tiny' is in use by run 'tuned'",
  );
  await Promise.resolve();
  jobs.jobs.cancel(run.id);
  await jobs.jobs.whenEnded(run.id);
  await service.handlers.removeModel({ id: job.subjectId! });
  expect(await service.handlers.listModels({})).toEqual([]);
  expect((await service.models.resolve(folder)).model).toBeNull();
});
