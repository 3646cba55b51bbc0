import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFakeHub, type FakeHub } from '../../../tests/support/fakeHub.ts';
import { createFakeData, tinyTokenizer, type FakeData } from '../../../tests/support/fakeData.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { mixSchema, recipeSchema } from '../../shared/dataset/recipe.ts';
import { sourceSchema } from '../../shared/dataset/source.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import type { Models } from '../models/index.ts';
import { createDatasetsService, type DatasetsService } from './index.ts';

let dir: string;
let store: Store;
let data: FakeData;
let hub: FakeHub;
let jobs: JobsService;
let service: DatasetsService;
let events: string[];
let mixRows: number;

const models = {
  resolve: (ref: string) =>
    ref === 'tiny' || ref.startsWith('/')
      ? Promise.resolve({
          name: 'tiny',
          model: null,
          dir: '/models/tiny',
          tokenizerPath: '/models/tiny/tokenizer.json',
          ...tinyTokenizer,
          trained: null,
        })
      : Promise.reject(new CaravanError('not_found', `no model ${ref}`)),
  tokenizerHash: () => Promise.resolve('abcdef0123456789'),
} as unknown as Models;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'datasets-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  events = [];
  mixRows = 6;
  data = createFakeData({
    importSource({ files, outDir }) {
      mkdirSync(outDir);
      return {
        format: 'messages',
        notes: [],
        rowsIn: 10,
        rows: 9,
        rejected: 1,
        rejectedByReason: { empty_answer: 1 },
        labels: { '': 9 },
        bytes: 100,
        contentHash: `hash of ${files.join()}`,
      };
    },
    buildMix({ recipe, outDir, tokenizer }) {
      const counts = {
        rows: mixRows,
        validationRows: 2,
        tokens: tokenizer ? 60 : null,
        targetTokens: tokenizer ? 30 : null,
        sources: recipe.sources.map(({ name }) => ({
          name,
          rowsIn: 10,
          rows: 3,
          validationRows: 1,
          tokens: tokenizer ? 30 : null,
          targetTokens: tokenizer ? 15 : null,
          rejectedByReason: {},
        })),
      };
      rmSync(outDir, { recursive: true, force: true });
      mkdirSync(outDir, { recursive: true });
      const { model: _place, ...rest } = recipe;
      const files = {
        'mix.parquet': 'x',
        ...(tokenizer && { 'shards/abcdef012345/train.safetensors': 'y' }),
      };
      const manifest = {
        format: 'caravan-mix-1',
        recipe: rest,
        tokenizer: tokenizer && { model: tokenizer.modelName, hash: tokenizer.hash },
        counts,
        files,
      };
      writeFileSync(join(outDir, 'manifest.json'), JSON.stringify(manifest));
      return { ...counts, contentHash: `content ${mixRows}` };
    },
  });
  hub = createFakeHub(dir, { 'ada/rows': { 'a.jsonl': 'rows', 'b.jsonl': 'rows' } });
  jobs = createJobsService({ store, emit: () => undefined });
  service = createDatasetsService({
    store,
    home: dir,
    data,
    hub,
    jobs: jobs.jobs,
    models,
    emit: (name) => void events.push(name),
  });
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

async function importOne(file = '/data/rows.jsonl', name?: string) {
  const job = await service.handlers.importSource({
    files: [file],
    format: 'auto',
    ...(name !== undefined && { name }),
  });
  return jobs.jobs.whenEnded(job.id);
}

const recipe = (more: object = {}) =>
  recipeSchema.parse({ name: 'blend', model: 'tiny', sources: [{ name: 'a', source: 'rows' }], ...more });

async function build(more: object = {}, outDir?: string) {
  const job = await service.handlers.buildMix({
    recipe: recipe(more),
    baseDir: dir,
    ...(outDir !== undefined && { outDir }),
  });
  return jobs.jobs.whenEnded(job.id);
}

describe('sources', () => {
  test('an import becomes a source named after its file, with its counts and log', async () => {
    const job = await importOne();
    expect(job).toMatchObject({ state: 'completed', kind: 'import' });
    const source = await service.handlers.getSource({ id: job.subjectId! });
    expect(sourceSchema.parse(source)).toMatchObject({ name: 'rows', rowsIn: 10, rows: 9, rejected: 1 });
    expect(existsSync(join(dir, 'sources', source.id))).toBe(true);
    expect((await jobs.handlers.getJobLog({ id: job.id })).lines.join('\n')).toContain('1 empty_answer');
    expect(events).toEqual(['sourcesChanged']);
  });

  test('names: numbered when they come from the file, refused when they were asked for', async () => {
    await importOne();
    const second = await importOne('/other/rows.jsonl');
    expect((await service.handlers.getSource({ id: second.subjectId! })).name).toBe('rows-2');
    await expect((async () => importOne('/x.jsonl', 'rows'))()).rejects.toMatchObject({ code: 'name_taken' });
    const racing = await Promise.all([importOne('/x.jsonl', 'same'), importOne('/y.jsonl', 'same')]);
    expect(racing.map((job) => job.state)).toEqual(['completed', 'failed']);
    expect(racing[1].error).toMatchObject({ code: 'name_taken' });
  });

  test('a failed import names file, line and field, and leaves no source', async () => {
    data.answers.importSource = () => {
      throw new CaravanError('no_rows', 'not one of 3 rows could be read', {
        place: { file: '/x.jsonl', line: 3, field: 'answer' },
      });
    };
    expect(await importOne()).toMatchObject({
      state: 'failed',
      error: { code: 'no_rows', place: { file: '/x.jsonl', line: 3, field: 'answer' } },
    });
    expect(await service.handlers.listSources({})).toEqual([]);
  });

  test('cancelling reaches the data process', async () => {
    data.answers.importSource = (_, { signal }) =>
      new Promise((_resolve, reject) =>
        signal!.addEventListener('abort', () =>
          reject(new CaravanError('cancelled', 'the import was cancelled')),
        ),
      );
    const job = await service.handlers.importSource({ files: ['/x.jsonl'], format: 'auto' });
    await expect.poll(() => data.asked.length).toBe(1);
    jobs.jobs.cancel(job.id);
    expect((await jobs.jobs.whenEnded(job.id)).state).toBe('cancelled');
  });

  test('a source that a mix is built from stays, and what a stuck import left goes', async () => {
    const { subjectId } = await importOne();
    const { promise, reject } = Promise.withResolvers<never>();
    let scratch = '';
    data.answers.buildMix = ({ outDir }) => {
      scratch = join(outDir, '..', `.${basename(outDir)}.partial`);
      mkdirSync(scratch, { recursive: true });
      return promise;
    };
    const job = await service.handlers.buildMix({ recipe: recipe(), baseDir: dir });
    await expect.poll(() => scratch).not.toBe('');
    await expect((async () => service.handlers.removeSource({ id: subjectId! }))()).rejects.toMatchObject({
      code: 'wrong_state',
      message: "source 'rows' is in use by job 'mix blend' (running)",
    });
    expect(() => jobs.jobs.checkUnneeded('model /models/tiny', 'it')).toThrow("job 'mix blend'");
    jobs.jobs.cancel(job.id);
    reject(new CaravanError('cancelled', 'buildMix did not stop'));
    expect((await jobs.jobs.whenEnded(job.id)).state).toBe('cancelled');
    expect(existsSync(scratch)).toBe(false);
    await service.handlers.removeSource({ id: subjectId! });
  });

  test('removing deletes its rows', async () => {
    const { subjectId } = await importOne();
    await service.handlers.removeSource({ id: subjectId! });
    expect(existsSync(join(dir, 'sources', subjectId!))).toBe(false);
    await expect((async () => service.handlers.getSource({ id: subjectId! }))()).rejects.toMatchObject({
      code: 'not_found',
    });
  });
});

describe('mixes', () => {
  test('are built from library sources, by name', async () => {
    const source = await importOne();
    const job = await build();
    expect(job).toMatchObject({ state: 'completed', kind: 'mix' });
    const mix = await service.handlers.getMix({ id: job.subjectId! });
    expect(mixSchema.parse(mix)).toMatchObject({
      name: 'blend',
      rows: 6,
      model: 'tiny',
      template: 'camelidae',
      seqLen: 2048,
    });
    expect(data.asked.at(-1)).toMatchObject({
      name: 'buildMix',
      params: {
        sources: [{ dir: join(dir, 'sources', source.subjectId!), contentHash: 'hash of /data/rows.jsonl' }],
        tokenizer: { path: '/models/tiny/tokenizer.json', hash: 'abcdef0123456789', modelName: 'tiny' },
      },
    });
  });

  test('import files on the way, relative to the recipe, once', async () => {
    writeFileSync(join(dir, 'raw.jsonl'), '{}');
    const sources = [{ name: 'a', path: 'raw.jsonl' }];
    expect((await build({ sources })).state).toBe('completed');
    expect(await service.handlers.listSources({})).toMatchObject([
      { name: 'raw', files: [join(dir, 'raw.jsonl')] },
    ]);
    await build({ sources, name: 'again' });
    expect(data.asked.filter(({ name }) => name === 'importSource')).toHaveLength(1);
    writeFileSync(join(dir, 'raw.jsonl'), '{"changed": 1}');
    await build({ sources, name: 'third' });
    expect(data.asked.filter(({ name }) => name === 'importSource')).toHaveLength(2);
  });

  test.each([
    [
      { sources: [{ name: 'a', source: 'nowhere' }] },
      { code: 'not_found', place: { field: 'sources[0].source' } },
    ],
    [{ model: 'nomodel' }, { code: 'not_found' }],
  ])('fail by name: %j', async (more, error) => {
    await importOne();
    expect(await build(more)).toMatchObject({ state: 'failed', error });
  });

  test('refuse two sources of one name', async () => {
    const sources = [
      { name: 'a', source: 'rows' },
      { name: 'a', source: 'rows' },
    ];
    await expect(build({ sources })).rejects.toMatchObject({
      code: 'bad_recipe',
      place: { field: 'sources[1].name' },
    });
  });

  test('the same bytes again are the same mix; other bytes take the name, and the earlier keeps its rows', async () => {
    await importOne();
    const first = await build();
    expect((await build()).subjectId).toBe(first.subjectId);
    mixRows = 4;
    const second = await build();
    expect(second.subjectId).not.toBe(first.subjectId);
    expect(await service.handlers.getMix({ id: 'blend' })).toMatchObject({ id: second.subjectId, rows: 4 });
    expect(await service.handlers.getMix({ id: 'blend-old' })).toMatchObject({
      id: first.subjectId,
      rows: 6,
    });
    expect((await jobs.handlers.getJobLog({ id: second.id })).lines.join()).toContain('blend-old');
  });

  test('a folder of the user: built again in place, found by its path, not deleted with the mix', async () => {
    await importOne();
    const out = join(dir, 'out');
    const first = await build({}, out);
    const again = await build({}, out);
    expect(again.subjectId).toBe(first.subjectId);
    const found = await service.datasets.findMix(out);
    expect(found).toMatchObject({
      mix: { id: first.subjectId, name: 'blend', dir: out },
      tokenizerHash: 'abcdef0123456789',
      trainShard: join(out, 'shards/abcdef012345/train.safetensors'),
      validationShard: null,
    });
    const run = jobs.jobs.submit({
      kind: 'train',
      title: 'tuned',
      needs: [`mix ${(await service.handlers.getMix({ id: first.subjectId! })).dir}`],
      run: ({ signal }) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
    });
    await expect
      .poll(() => run && (jobs.handlers.getJob({ id: run.id }) as { state: string }).state)
      .toBe('running');
    await expect((async () => service.handlers.removeMix({ id: first.subjectId! }))()).rejects.toMatchObject({
      code: 'wrong_state',
      message: expect.stringContaining("run 'tuned' (running)") as string,
    });
    jobs.jobs.cancel(run.id);
    await jobs.jobs.whenEnded(run.id);
    await service.handlers.removeMix({ id: first.subjectId! });
    expect(existsSync(join(out, 'manifest.json'))).toBe(true);
    expect(await service.datasets.findMix(out)).toMatchObject({ mix: { id: out, name: 'out', rows: 6 } });
  });

  test('never replace a folder that holds other things', async () => {
    await importOne();
    const out = join(dir, 'precious');
    mkdirSync(out);
    writeFileSync(join(out, 'thesis.tex'), 'years of work');
    expect(await build({}, out)).toMatchObject({ state: 'failed', error: { code: 'bad_option' } });
    expect(existsSync(join(out, 'thesis.tex'))).toBe(true);
  });

  test('one below the home goes with its record', async () => {
    await importOne();
    const { subjectId } = await build();
    const { dir: folder } = await service.handlers.getMix({ id: subjectId! });
    await service.handlers.removeMix({ id: subjectId! });
    expect(existsSync(folder)).toBe(false);
  });

  test.each([
    ['nothing', () => 'nothing', 'not_found'],
    ['a folder without a manifest', () => dir, 'not_found'],
    [
      'a manifest of something else',
      () => {
        writeFileSync(join(dir, 'manifest.json'), '{"format":"other"}');
        return dir;
      },
      'bad_file',
    ],
  ])('a reference to %s', async (_, ref, code) => {
    await expect(service.datasets.findMix(ref())).rejects.toMatchObject({ code });
  });
});

test('an export goes to a new or empty folder, never over what is there', async () => {
  data.answers.exportMix = ({ format, outDir }) => ({
    dir: outDir,
    format,
    files: [{ name: 'train.jsonl', split: 'train', rows: 6, bytes: 60 }],
    leftOut: { 'raw text': 2 },
  });
  await importOne();
  await build();
  const outDir = join(dir, 'exported');
  const exportTo = async (to: string) =>
    jobs.jobs.whenEnded(
      (await service.handlers.exportMix({ id: 'blend', format: 'messages', outDir: to })).id,
    );
  const job = await exportTo(outDir);
  expect(job).toMatchObject({ state: 'completed', kind: 'mix-export' });
  expect((await jobs.handlers.getJobLog({ id: job.id })).lines).toEqual([
    'train.jsonl: 6 rows',
    'left out: 2 rows: raw text',
  ]);
  expect(await exportTo(dir)).toMatchObject({ state: 'failed', error: { code: 'bad_option' } });
  expect(data.asked.filter(({ name }) => name === 'exportMix')).toHaveLength(1);
});

describe('previews', () => {
  const preview = async () => {
    const job = await service.handlers.previewMix({ recipe: recipe({ model: undefined }), baseDir: dir });
    return jobs.jobs.whenEnded(job.id);
  };
  beforeEach(() => {
    data.answers.previewMix = ({ recipe: asked, outDir }) => {
      mkdirSync(outDir, { recursive: true });
      const result = { recipe: asked, sources: [], contamination: [], problems: [] };
      writeFileSync(join(outDir, 'preview.json'), JSON.stringify(result));
      return result;
    };
    data.answers.readMixRejects = () => [];
  });

  test('are read by the job’s subject; only the newest few are kept', async () => {
    await importOne();
    const first = await preview();
    expect(first).toMatchObject({ state: 'completed', kind: 'preview' });
    const id = first.subjectId!;
    expect(await service.handlers.readMixPreview({ id })).toMatchObject({ id, recipe: { name: 'blend' } });
    await service.handlers.readMixRejects({ id, after: -1, limit: 5, step: 'dedup' });
    expect(data.asked.at(-1)).toEqual({
      name: 'readMixRejects',
      params: { dir: join(dir, 'previews', id), after: -1, limit: 5, step: 'dedup' },
    });
    for (let i = 0; i < 4; i++) await preview();
    await expect((async () => service.handlers.readMixPreview({ id }))()).rejects.toMatchObject({
      code: 'not_found',
    });
    expect(existsSync(join(dir, 'previews', id))).toBe(false);
  });

  test('of a mix: its own folder', async () => {
    await importOne();
    const { subjectId } = await build();
    await service.handlers.readMixRejects({ id: subjectId!, after: -1, limit: 5 });
    const { dir: folder } = await service.handlers.getMix({ id: subjectId! });
    expect(data.asked.at(-1)).toMatchObject({ name: 'readMixRejects', params: { dir: folder } });
  });
});

test('a dataset of the hub, by import and in a recipe, keeps where it came from and is downloaded once', async () => {
  const job = await jobs.jobs.whenEnded(
    (await service.handlers.importSource({ files: ['hub:ada/rows@v2'], format: 'auto' })).id,
  );
  expect(job).toMatchObject({ state: 'completed' });
  const source = await service.handlers.getSource({ id: job.subjectId! });
  expect(source).toMatchObject({
    name: 'rows',
    files: [expect.stringMatching(/a\.jsonl$/), expect.stringMatching(/b\.jsonl$/)],
    hub: [{ id: 'ada/rows', revision: 'v2', commit: 'c'.repeat(40) }],
  });
  const access = { endpoint: 'https://mirror.example', token: 'hf_x' };
  const recipe = recipeSchema.parse({ name: 'mixed', sources: [{ name: 'r', hub: 'ada/rows@v2' }] });
  const built = await service.handlers.buildMix({ recipe, baseDir: dir, access });
  expect(await jobs.jobs.whenEnded(built.id)).toMatchObject({ state: 'completed' });
  expect(hub.asked.at(-1)).toEqual({ kind: 'dataset', reference: 'hub:ada/rows@v2', access });
  expect(await service.handlers.listSources({})).toHaveLength(1);
  expect(() =>
    service.handlers.buildMix({
      recipe: recipeSchema.parse({ name: 'x', sources: [{ name: 'r', path: 'hub:ada/../rows' }] }),
      baseDir: dir,
    }),
  ).toThrow(/names no repository/);
});

test('clears what a killed data process left half-written', async () => {
  mkdirSync(join(dir, 'sources', 'x.partial'), { recursive: true });
  mkdirSync(join(dir, 'mixes', '.y.partial'), { recursive: true });
  await createDatasetsService({
    store,
    home: dir,
    data,
    hub,
    jobs: jobs.jobs,
    models,
    emit: () => undefined,
  }).close();
  expect(existsSync(join(dir, 'sources', 'x.partial'))).toBe(false);
  expect(existsSync(join(dir, 'mixes', '.y.partial'))).toBe(false);
});
