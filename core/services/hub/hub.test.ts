import { mkdtempSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { HubProcess, HubRequestOptions } from '../../hub/client.ts';
import type { RequestParams } from '../../hub/protocol.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { HubPlan } from '../../shared/hub/hubReference.ts';
import { createJobsService, type JobsService } from '../jobs/index.ts';
import { openStore, type Store } from '../../store/openStore.ts';
import { createHubService, createPauseGate } from './index.ts';

let home: string;
let store: Store;
let jobs: JobsService;
let asked: { name: string; params: RequestParams<'plan'> | RequestParams<'download'> }[];
let download: (options: HubRequestOptions) => Promise<object>;
const env: Record<string, string | undefined> = {};

const plan: HubPlan = {
  kind: 'dataset',
  origin: {
    id: 'ada/rows',
    revision: 'main',
    files: null,
    endpoint: 'https://huggingface.co',
    commit: 'c'.repeat(40),
  },
  gated: false,
  files: [
    { path: 'b.jsonl', size: 5, hash: { kind: 'git', hex: '0'.repeat(40) } },
    { path: 'a.jsonl', size: 6, hash: { kind: 'git', hex: '1'.repeat(40) } },
  ],
  bytes: 11,
  presentBytes: 5,
  leftOut: ['1 other file not needed: README.md'],
  freeDiskBytes: 1e12,
  dir: '/downloads',
};
const process: HubProcess = {
  pid: 1,
  request: ((name: string, params: RequestParams<'plan'>, options: HubRequestOptions = {}) => {
    asked.push({ name, params });
    return name === 'plan' ? Promise.resolve(plan) : download(options);
  }) as HubProcess['request'],
  close: () => Promise.resolve(),
};

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'hub-service-'));
  store = await openStore({ file: join(home, 'caravan.db'), reserveBytes: 0 });
  jobs = createJobsService({ store, emit: () => undefined });
  asked = [];
  download = () => Promise.resolve({});
  for (const name of Object.keys(env)) delete env[name];
});
afterEach(async () => {
  await store.close();
  rmSync(home, { recursive: true, force: true });
});

const open = () => createHubService({ home, process, env, userHome: home });
const tokenAsked = () => asked.at(-1)!.params.token;

function fetchInJob(gate = createPauseGate()) {
  const { hub } = open();
  return jobs.jobs.submit({
    kind: 'import',
    title: 'a download',
    pausing: gate,
    async run(context) {
      const { files } = await hub.fetch(
        { kind: 'dataset', reference: 'hub:ada/rows', access: undefined },
        context,
        gate,
      );
      context.log(files.join());
    },
  });
}

test('logs what is downloaded and where it went, never a token', async () => {
  env['HF_TOKEN'] = 'hf_secret';
  download = ({ onProgress }) => {
    onProgress?.(8, 11);
    return Promise.resolve({});
  };
  const { id } = fetchInJob();
  expect((await jobs.jobs.whenEnded(id)).state).toBe('completed');
  expect(tokenAsked()).toBe('hf_secret');
  const { lines } = await jobs.handlers.getJobLog({ id });
  expect(lines).toEqual([
    `ada/rows@main is commit ${'c'.repeat(40)} at https://huggingface.co`,
    '2 files, 11 B, of which 5 B are here',
    '1 other file not needed: README.md',
    `${join('/downloads', 'a.jsonl')},${join('/downloads', 'b.jsonl')}`,
  ]);
});

test('a pause ends the request and a resume starts another; a cancel while paused ends the job', async () => {
  let begun = 0;
  download = ({ signal }) => {
    begun++;
    return new Promise((resolve, reject) => {
      if (begun === 2) resolve({});
      signal!.addEventListener('abort', () => reject(new CaravanError('cancelled', 'stopped')));
    });
  };
  const { id } = fetchInJob();
  await vi.waitFor(() => expect(begun).toBe(1));
  await jobs.handlers.pauseJob({ id });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await jobs.handlers.getJob({ id })).state).toBe('paused');
  expect(begun).toBe(1);
  await jobs.handlers.resumeJob({ id });
  expect((await jobs.jobs.whenEnded(id)).state).toBe('completed');

  begun = 0;
  const other = fetchInJob();
  await vi.waitFor(() => expect(begun).toBe(1));
  await jobs.handlers.pauseJob({ id: other.id });
  await jobs.handlers.cancelJob({ id: other.id });
  expect((await jobs.jobs.whenEnded(other.id)).state).toBe('cancelled');
  expect(begun).toBe(1);
});

test('tokens: the environment before the kept one before that of other programs, each to its own hub', async () => {
  const service = open();
  const inspect = (access?: { endpoint?: string; token?: string }) =>
    service.handlers.inspectHub({ kind: 'model', reference: 'hub:a/b', ...(access && { access }) });
  expect(await service.handlers.hubStatus({})).toEqual({ endpoint: 'https://huggingface.co', token: null });
  mkdirSync(join(home, '.cache', 'huggingface'), { recursive: true });
  writeFileSync(join(home, '.cache', 'huggingface', 'token'), 'hf_theirs\n');
  await inspect();
  expect(tokenAsked()).toBe('hf_theirs');
  await service.handlers.setHubToken({ token: ' hf_kept ' });
  const file = join(home, 'host', 'hub-token');
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readFileSync(file, 'utf8')).toContain('hf_kept');
  await inspect();
  expect(tokenAsked()).toBe('hf_kept');
  env['HF_TOKEN'] = 'hf_env';
  await inspect();
  expect(tokenAsked()).toBe('hf_env');
  await inspect({ endpoint: 'https://mirror.example/' });
  expect(asked.at(-1)!.params).toMatchObject({ endpoint: 'https://mirror.example' });
  expect(tokenAsked()).toBeUndefined();
  await inspect({ endpoint: 'https://mirror.example', token: 'hf_call' });
  expect(tokenAsked()).toBe('hf_call');
  delete env['HF_TOKEN'];
  await service.handlers.setHubToken({ token: null });
  expect((await service.handlers.hubStatus({})).token).toBe('huggingface');
  await expect((async () => service.handlers.setHubToken({ token: 'a b' }))()).rejects.toThrow(/blanks/);
});
