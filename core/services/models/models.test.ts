import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createFakeData,
  tinyModelSummary,
  tinyTokenizer,
  type FakeData,
} from '../../../tests/support/fakeData.ts';
import { createFakeHub, type FakeHub } from '../../../tests/support/fakeHub.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { modelSchema } from '../../shared/model/model.ts';
import { runConfigSchema } from '../../shared/run/runConfig.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import { createModelsService, type ModelsService, type TrainedModel } from './index.ts';

let dir: string;
let store: Store;
let data: FakeData;
let hub: FakeHub;
let jobs: JobsService;
let service: ModelsService;
let events: string[];
let runs: Map<string, TrainedModel>;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'models-'));
  mkdirSync(join(dir, 'home'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  events = [];
  runs = new Map();
  data = createFakeData({
    inspectModel: () => tinyModelSummary,
    readTokenizer: () => tinyTokenizer,
    hashModel: ({ dir: model }) => ({ identity: `identity of ${basename(model)}` }),
    hashFile: ({ path }) => ({ hash: `hash of ${basename(path)}` }),
    checkTokenizer: () => [{ name: 'round-trip', passed: true, found: 'all of it' }],
    tokenize: ({ texts }) => ({ ids: texts.map((text) => [text.length]) }),
  });
  hub = createFakeHub(dir, {
    'ada/tiny': { 'config.json': '{}', 'model.safetensors': 'x', 'tokenizer.json': '{}' },
    'ada/tiny-GGUF': { 'tiny.Q8_0.gguf': 'GGUF' },
  });
  jobs = createJobsService({ store, emit: () => undefined });
  service = createModelsService({
    store,
    home: join(dir, 'home'),
    data,
    hub,
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

async function add(path: string, name?: string, copy = false) {
  const job = await service.handlers.addModel({ path, copy, ...(name !== undefined && { name }) });
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
    (async () => service.handlers.addModel({ path: modelFolder('third'), name: 'tiny', copy: false }))(),
  ).rejects.toMatchObject({
    code: 'name_taken',
  });
});

test('adds a model of the hub, which keeps where it came from', async () => {
  const job = await add('hub:ada/tiny@v1');
  expect(job).toMatchObject({ state: 'completed', canPause: false });
  const model = await service.handlers.getModel({ id: job.subjectId! });
  expect(model).toMatchObject({
    name: 'tiny',
    dir: join(dir, 'hub', 'models', 'ada--tiny', 'c'.repeat(40)),
    hub: { id: 'ada/tiny', revision: 'v1', commit: 'c'.repeat(40) },
  });
  expect((await service.models.resolve('tiny')).dir).toBe(model.dir);
  // Hashed again from its folder it is still the hub's.
  await add(model.dir);
  expect(await service.handlers.getModel({ id: job.subjectId! })).toMatchObject({ hub: { id: 'ada/tiny' } });
  const gguf = await add('hub:ada/tiny-GGUF:tiny.Q8_0.gguf');
  expect(await service.handlers.getModel({ id: gguf.subjectId! })).toMatchObject({ name: 'tiny.Q8_0' });
  await service.handlers.removeModel({ id: gguf.subjectId! });
  expect(existsSync(join(model.dir, '..', '..', 'ada--tiny-GGUF', 'c'.repeat(40), 'tiny.Q8_0.gguf'))).toBe(
    false,
  );
  expect(existsSync(model.dir)).toBe(true);
  await service.handlers.removeModel({ id: job.subjectId! });
  expect(existsSync(model.dir)).toBe(false);
  await expect(service.handlers.addModel({ path: 'hub:ada/../x', copy: false })).rejects.toThrow(
    /names no repository/,
  );
  expect(await add('hub:ada/none')).toMatchObject({ state: 'failed', error: { code: 'not_found' } });
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

test('keeps what the checks of tokenizer and template found, and asks for the template that there is', async () => {
  const job = await add(modelFolder('tiny'));
  expect((await service.handlers.getModel({ id: job.subjectId! })).checks).toEqual([
    { name: 'round-trip', passed: true, found: 'all of it' },
  ]);
  expect(data.asked.find(({ name }) => name === 'checkTokenizer')?.params).toMatchObject({
    template: 'camelidae',
    stopIds: [2],
  });
});

test('a copy lies in the home, stays when the folder goes, and goes with its model', async () => {
  const folder = modelFolder('tiny');
  writeFileSync(join(folder, 'pytorch_model.bin'), 'not carried');
  const job = await add(folder, 'mine', true);
  expect(job.state).toBe('completed');
  const model = await service.handlers.getModel({ id: job.subjectId! });
  expect(model).toMatchObject({
    name: 'mine',
    copiedFrom: folder,
    dir: join(dir, 'home', 'models', model.id),
  });
  expect(readdirSync(model.dir).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
  expect(readFileSync(join(model.dir, 'model.safetensors'), 'utf8')).toBe('tiny');
  expect(readdirSync(join(dir, 'home', 'models'))).toEqual([model.id]);
  await expect((async () => service.handlers.addModel({ path: folder, copy: true }))()).rejects.toMatchObject(
    {
      code: 'wrong_state',
      message: expect.stringContaining("'mine'"),
    },
  );
  rmSync(folder, { recursive: true });
  expect((await service.models.resolve('mine')).dir).toBe(model.dir);
  await service.handlers.removeModel({ id: model.id });
  expect(existsSync(model.dir)).toBe(false);
});

test('a copy that is cancelled or refused leaves nothing in the home', async () => {
  const folder = modelFolder('tiny');
  data.answers.hashModel = () => {
    throw new CaravanError('cancelled', 'cancelled while hashing');
  };
  expect((await add(folder, undefined, true)).state).toBe('cancelled');
  expect(readdirSync(join(dir, 'home', 'models'))).toEqual([]);
  data.answers.inspectModel = () => {
    throw new CaravanError('unsupported_architecture', 'GPT2');
  };
  expect((await add(folder, undefined, true)).state).toBe('failed');
  expect(readdirSync(join(dir, 'home', 'models'))).toEqual([]);
});

test('in the trash a model is out of lists and names; restored it has its name, or a free one', async () => {
  const folder = modelFolder('tiny');
  const { subjectId } = await add(folder);
  const id = subjectId!;
  await service.handlers.trashModel({ id });
  expect(await service.handlers.listModels({})).toEqual([]);
  expect(await service.handlers.listModelTrash({})).toMatchObject([{ id, name: 'tiny' }]);
  await expect(service.models.resolve('tiny')).rejects.toMatchObject({ code: 'not_found' });
  expect((await service.models.resolve(folder)).model).toBeNull();
  mkdirSync(join(dir, 'other'));
  const other = join(dir, 'other', 'tiny');
  mkdirSync(other);
  writeFileSync(join(other, 'tokenizer.json'), '');
  await add(other);
  expect(await service.handlers.restoreModel({ id })).toEqual({ name: 'tiny-2' });
  expect(await service.handlers.listModelTrash({})).toEqual([]);
  expect((await service.models.resolve('tiny-2')).dir).toBe(folder);
  expect(existsSync(join(folder, 'config.json'))).toBe(true);
});

test('adding a folder whose model lies in the trash brings that one back', async () => {
  const folder = modelFolder('tiny');
  const first = await add(folder, 'mine');
  await service.handlers.trashModel({ id: first.subjectId! });
  const again = await add(folder);
  expect(again.subjectId).toBe(first.subjectId);
  expect(await service.handlers.listModels({})).toMatchObject([{ id: first.subjectId, name: 'mine' }]);
  expect(await service.handlers.listModelTrash({})).toEqual([]);
});

describe('a look before adding', () => {
  test('takes the folder of a file of its, and says what a copy would take', async () => {
    const folder = modelFolder('tiny');
    expect(await service.handlers.previewModel({ path: join(folder, 'model.safetensors') })).toMatchObject({
      found: 'folder',
      name: 'tiny',
      model: { dir: folder, family: 'llama' },
      problem: null,
      copyBytes: 12,
      known: null,
    });
    const { subjectId } = await add(folder);
    expect((await service.handlers.previewModel({ path: folder })).known).toEqual({
      id: subjectId,
      name: 'tiny',
    });
  });
  test('says why a model is refused', async () => {
    data.answers.inspectModel = () => {
      throw new CaravanError('unsupported_architecture', 'GPT2LMHeadModel', { mend: 'Use another.' });
    };
    expect(await service.handlers.previewModel({ path: modelFolder('gpt') })).toMatchObject({
      found: 'folder',
      model: null,
      problem: { code: 'unsupported_architecture', mend: 'Use another.' },
    });
    expect(await service.handlers.previewModel({ path: join(dir, 'nowhere') })).toMatchObject({
      found: null,
      files: [],
      problem: { code: 'not_found' },
    });
  });
});

test.each(['a/b', 'run:x', ' x', ''])('refuses the name %j', async (name) => {
  await expect(
    (async () => service.handlers.addModel({ path: '/x', name, copy: false }))(),
  ).rejects.toMatchObject({
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
  const inUse = "model 'tiny' is in use by run 'tuned'";
  await expect((async () => service.handlers.removeModel({ id: job.subjectId! }))()).rejects.toThrow(inUse);
  expect(() => service.handlers.trashModel({ id: job.subjectId! })).toThrow(inUse);
  await Promise.resolve();
  jobs.jobs.cancel(run.id);
  await jobs.jobs.whenEnded(run.id);
  await service.handlers.removeModel({ id: job.subjectId! });
  expect(await service.handlers.listModels({})).toEqual([]);
  expect((await service.models.resolve(folder)).model).toBeNull();
});
