import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createFakeHub } from '../../../tests/support/fakeHub.ts';
import { createFakeData, tinyTokenizer, type FakeData } from '../../../tests/support/fakeData.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { lookQuerySchema, type DatasetRef } from '../../shared/dataset/look.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import type { Models } from '../models/index.ts';
import { createDatasetsService, type DatasetsService } from './index.ts';

let dir: string;
let store: Store;
let data: FakeData;
let jobs: JobsService;
let service: DatasetsService;

const yardstick = { model: 'tiny', template: 'camelidae' as const, seqLen: 2048 };
const query = lookQuerySchema.parse({});
const models = {
  resolve: () => Promise.resolve({ name: 'tiny', tokenizerPath: '/tiny/tokenizer.json', ...tinyTokenizer }),
  tokenizerHash: () => Promise.resolve('abcdef0123456789'),
} as unknown as Models;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'looking-'));
  store = await openStore({ file: join(dir, 'caravan.db'), reserveBytes: 0 });
  const write = (file: string) => {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, '');
  };
  data = createFakeData({
    importSource({ files, outDir }) {
      write(join(outDir, 'rows.parquet'));
      return {
        format: 'messages',
        notes: [],
        rowsIn: 9,
        rows: 9,
        rejected: 0,
        rejectedByReason: {},
        labels: { '': 9 },
        bytes: 100,
        contentHash: Buffer.from(files.join()).toString('hex'),
      };
    },
    prepareLook({ out }) {
      write(out);
      return { rows: 9, rejects: 0 };
    },
    measureRows({ out }) {
      write(out);
      return { rows: 9 };
    },
    readLook: () => ({ total: 9, rows: [], rejects: [] }),
    closeLook: () => ({}),
  });
  jobs = createJobsService({ store, emit: () => undefined });
  const emit = () => undefined;
  service = createDatasetsService({
    store,
    home: dir,
    data,
    hub: createFakeHub(),
    jobs: jobs.jobs,
    models,
    emit,
  });
});
afterEach(async () => {
  await jobs.close();
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

async function importOne(name = 'rows'): Promise<DatasetRef> {
  const job = await service.handlers.importSource({ files: [`/data/${name}.jsonl`], format: 'auto' });
  return { kind: 'source', id: (await jobs.jobs.whenEnded(job.id)).subjectId! };
}

test('the first look makes an index as a job, once; the next finds it', async () => {
  const of = await importOne();
  await expect(
    (async () => service.handlers.readLook({ of, yardstick: null, query, from: 0, count: 10 }))(),
  ).rejects.toMatchObject({ code: 'wrong_state' });
  const [first, second] = await Promise.all([
    service.handlers.openLook({ of, yardstick: null }),
    service.handlers.openLook({ of, yardstick: null }),
  ]);
  expect(first.job!.id).toBe(second.job!.id);
  expect((await jobs.jobs.whenEnded(first.job!.id)).state).toBe('completed');
  expect(await service.handlers.openLook({ of, yardstick: null })).toEqual({ job: null, measured: false });
  await service.handlers.readLook({ of, yardstick: null, query, from: 0, count: 10 });
  expect(data.asked.filter(({ name }) => name === 'prepareLook')).toHaveLength(1);
});

test('a preparation that fails can be asked for again', async () => {
  const of = await importOne();
  const good = data.answers.prepareLook!;
  data.answers.prepareLook = () => {
    throw new CaravanError('disk_full', 'the disk is full');
  };
  const { job } = await service.handlers.openLook({ of, yardstick: null });
  expect((await jobs.jobs.whenEnded(job!.id)).state).toBe('failed');
  data.answers.prepareLook = good;
  const again = await service.handlers.openLook({ of, yardstick: null });
  expect((await jobs.jobs.whenEnded(again.job!.id)).state).toBe('completed');
});

test('measures belong to one tokenizer, template and length', async () => {
  const of = await importOne();
  const { job } = await service.handlers.openLook({ of, yardstick: null });
  await jobs.jobs.whenEnded(job!.id);
  const measuring = await service.handlers.measureDataset({ of, yardstick });
  await jobs.jobs.whenEnded(measuring.id);
  expect(await service.handlers.openLook({ of, yardstick })).toMatchObject({ measured: true });
  const other = { ...yardstick, seqLen: 1024 };
  expect(await service.handlers.openLook({ of, yardstick: other })).toMatchObject({ measured: false });
  await service.handlers.readLook({ of, yardstick, query, from: 0, count: 10 });
  const { files } = data.asked.at(-1)!.params as { files: { measures: string } };
  expect(files.measures).toContain('abcdef012345-camelidae-2048');
});

test('the trash: out of lists and names, back under a free name, gone only when removed', async () => {
  const of = await importOne();
  const { job } = await service.handlers.openLook({ of, yardstick: null });
  await jobs.jobs.whenEnded(job!.id);
  await service.handlers.trashDataset({ of });
  expect(await service.handlers.listSources({})).toEqual([]);
  const trash = await service.handlers.listTrash({});
  expect(trash.sources.map(({ id, name }) => [id, name])).toEqual([[of.id, 'rows']]);
  expect(trash.sources[0]!.trashedAt).toBeGreaterThan(0);
  // Its name is free, and the same file is imported anew.
  const twin = await importOne();
  expect(twin.id).not.toBe(of.id);
  expect((await service.handlers.getSource({ id: twin.id })).name).toBe('rows');
  expect(await service.handlers.restoreDataset({ of })).toEqual({ name: 'rows-2' });
  expect(await service.handlers.restoreDataset({ of }), 'it is back already').toEqual({ name: 'rows-2' });
  expect((await service.handlers.listSources({})).map(({ name }) => name).sort()).toEqual(['rows', 'rows-2']);
  expect((await service.handlers.listTrash({})).sources).toEqual([]);
  const index = (data.asked.find(({ name }) => name === 'prepareLook')!.params as { out: string }).out;
  expect(existsSync(index)).toBe(true);
  await service.handlers.removeSource({ id: of.id });
  expect(existsSync(index)).toBe(false);
  expect(data.asked.at(-1)).toMatchObject({ name: 'closeLook', params: { index } });
});

test('a preview wants absolute paths', () => {
  expect(() => service.handlers.previewImport({ files: ['rows.jsonl'], format: 'auto' })).toThrow('absolute');
});
