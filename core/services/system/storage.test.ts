import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Job } from '../../shared/job/job.ts';
import { createStorageService, type StorageDeps } from './createStorageService.ts';

let home: string;
let jobs: Job[];
let removed: string[];
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'storage-'));
  jobs = [];
  removed = [];
});
afterEach(() => rmSync(home, { recursive: true }));

const day = 86_400_000;
function put(path: string, bytes: number, ageMs = 0): string {
  const file = join(home, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, 'x'.repeat(bytes));
  const at = (Date.now() - ageMs) / 1000;
  utimesSync(file, at, at);
  return file;
}
const service = (more: Partial<StorageDeps> = {}) =>
  createStorageService({ home, jobs: () => jobs, trash: () => Promise.resolve([]), ...more }).handlers;
const share = async (kind: string) =>
  (await service().readStorage({})).shares.find((one) => one.kind === kind);

test('what a home takes, by what it is for', async () => {
  put('runs/a/checkpoints/step-000001/model.safetensors', 700);
  put('runs/a/metrics.jsonl', 30);
  put('caravan.db', 50);
  put('caravan.db-wal', 5);
  put('host.log', 9);
  expect(await share('runs')).toEqual({ kind: 'runs', bytes: 730, freeableBytes: null });
  expect(await share('database')).toMatchObject({ bytes: 55 });
  expect(await share('logs')).toMatchObject({ bytes: 9 });
  expect(await share('hub')).toMatchObject({ bytes: 0 });
});

test('row indexes go that have rested; none while a job makes one', async () => {
  const old = put('looking/old.db', 100, day);
  const fresh = put('looking/fresh.db', 10);
  expect(await share('looking')).toEqual({ kind: 'looking', bytes: 110, freeableBytes: 100 });
  const planned = await service().cleanStorage({ kinds: ['looking'], dryRun: true });
  expect(planned).toMatchObject({ freedBytes: 100, freed: [{ what: old }], kept: [{ what: fresh }] });
  expect(existsSync(old), 'a dry run removes nothing').toBe(true);
  jobs = [{ kind: 'look', state: 'running' } as Job];
  expect(await service().cleanStorage({ kinds: ['looking'], dryRun: false })).toMatchObject({ freed: [] });
  jobs = [{ kind: 'look', state: 'completed' } as Job];
  expect(await service().cleanStorage({ kinds: ['looking'], dryRun: false })).toMatchObject({
    freedBytes: 100,
  });
  expect([existsSync(old), existsSync(fresh)]).toEqual([false, true]);
});

test('of copies of the database the newest stays', async () => {
  for (const version of [2, 9, 10]) put(`caravan.db.bak-v${version}`, version);
  await service().cleanStorage({ kinds: ['backups'], dryRun: false });
  expect([2, 9, 10].map((version) => existsSync(join(home, `caravan.db.bak-v${version}`)))).toEqual([
    false,
    false,
    true,
  ]);
});

test('what lies in the trash is removed by who owns it; what cannot be says why', async () => {
  const item = (name: string, fails = false) => ({
    name,
    dir: dirname(put(`runs/${name}/x`, 5)),
    remove: () => {
      if (fails) return Promise.reject(new Error('in use'));
      removed.push(name);
      return Promise.resolve();
    },
  });
  const trash = [item('gone'), item('stuck', true)];
  const cleaned = await service({ trash: () => Promise.resolve(trash) }).cleanStorage({
    kinds: ['trash'],
    dryRun: false,
  });
  expect(removed).toEqual(['gone']);
  expect(cleaned).toMatchObject({ freedBytes: 5, kept: [{ why: 'in use' }] });
});
