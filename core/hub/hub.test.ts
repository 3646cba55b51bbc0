import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openLoopbackHub, type LoopbackHub } from '../../tests/support/loopbackHub.ts';
import { parseHubReference, type HubKind } from '../shared/hub/hubReference.ts';
import { partialEnding } from './checkPath.ts';
import { downloadFiles } from './downloadFiles.ts';
import { planDownload } from './planDownload.ts';

let hub: LoopbackHub;
let root: string;
const weights = Buffer.alloc(200_000, 'weights ');
const modelFiles = {
  'README.md': '# tiny',
  'config.json': '{}',
  'tokenizer.json': '{"tokens": 1}',
  'generation_config.json': '{}',
  'model.safetensors': weights,
  'pytorch_model.bin': Buffer.alloc(5000, 'b'),
  'onnx/model.onnx': Buffer.alloc(5000, 'o'),
};

beforeEach(async () => {
  hub = await openLoopbackHub();
  root = mkdtempSync(join(tmpdir(), 'hub-'));
});
afterEach(async () => {
  await hub.close();
  rmSync(root, { recursive: true, force: true });
});

function plan(reference: string, kind: HubKind = 'model', token?: string) {
  return planDownload(
    { kind, reference: parseHubReference(reference), endpoint: hub.url, token, root },
    new AbortController().signal,
    500,
  );
}

async function download(
  reference: string,
  {
    kind = 'model',
    token,
    signal = new AbortController().signal,
    onReport = () => undefined,
  }: {
    kind?: HubKind;
    token?: string;
    signal?: AbortSignal;
    onReport?: (done: number, total: number) => void;
  } = {},
) {
  const found = await plan(reference, kind, token);
  const reports: number[] = [];
  await downloadFiles(found, token, {
    signal,
    stallMs: 500,
    retryMs: [1, 1],
    report(done, total) {
      reports.push(done);
      onReport(done, total);
    },
  });
  return { ...found, reports };
}

const fileRequests = () => hub.requests.filter(({ path }) => /resolve|store/.test(path));

test('a model: the files that are needed, at the commit, each whole', async () => {
  const { commit } = hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  const { dir, origin, files, leftOut, reports, bytes } = await download('hub:ada/tiny');
  expect(origin).toMatchObject({ id: 'ada/tiny', revision: 'main', commit, endpoint: hub.url });
  expect(files.map(({ path }) => path)).toEqual([
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'model.safetensors',
  ]);
  expect(leftOut).toEqual([expect.stringContaining('3 other files not needed: README.md')]);
  expect(readdirSync(dir).sort()).toEqual([
    'caravan-hub.json',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'tokenizer.json',
  ]);
  expect(readFileSync(join(dir, 'model.safetensors')).equals(weights)).toBe(true);
  expect(reports.at(-1)).toBe(bytes);
  expect(reports.every((done, index) => index === 0 || done >= reports[index - 1]!)).toBe(true);
  expect(fileRequests().every(({ path }) => path.includes(commit) || path.startsWith('/store'))).toBe(true);
});

test('a commit that is here needs no network', async () => {
  const { commit } = hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  await download('hub:ada/tiny');
  const asked = hub.requests.length;
  hub.faults = { busy: 1000 };
  expect(await download(`hub:ada/tiny@${commit}`)).toMatchObject({ origin: { commit } });
  expect(hub.requests).toHaveLength(asked);
});

test('cut connections are taken up where they ended', async () => {
  hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  hub.faults = { cut: { after: 50_000, times: 3 }, busy: 0 };
  const { dir } = await download('hub:ada/tiny');
  expect(readFileSync(join(dir, 'model.safetensors')).equals(weights)).toBe(true);
  const ranges = fileRequests().flatMap(({ path, range }) => (path.startsWith('/store') ? [range] : []));
  expect(ranges).toEqual([undefined, 'bytes=50000-', 'bytes=100000-', 'bytes=150000-']);
});

test('what an earlier attempt left is kept and checked again', async () => {
  hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  hub.faults = { slowMs: 5 };
  const abort = new AbortController();
  await expect(
    download('hub:ada/tiny', {
      signal: abort.signal,
      onReport: (done) => done > 60_000 && abort.abort(),
    }),
  ).rejects.toMatchObject({ code: 'cancelled' });
  const { dir, presentBytes } = await plan('hub:ada/tiny');
  const part = join(dir, `model.safetensors${partialEnding}`);
  expect(statSync(part).size).toBeGreaterThan(60_000 - 200);
  expect(presentBytes).toBeGreaterThan(60_000);
  hub.faults = {};
  // Damaged while it lay there: told by the hash, and brought anew.
  writeFileSync(part, Buffer.alloc(statSync(part).size, 'x'));
  await download('hub:ada/tiny');
  expect(readFileSync(join(dir, 'model.safetensors')).equals(weights)).toBe(true);
  expect(existsSync(part)).toBe(false);
});

test('a file with another hash than listed is thrown away', async () => {
  hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  hub.faults = { corrupt: true };
  await expect(download('hub:ada/tiny')).rejects.toMatchObject({
    code: 'bad_file',
    message: expect.stringContaining('another hash'),
  });
  const { dir } = await plan('hub:ada/tiny');
  expect(readdirSync(dir)).toEqual([]);
});

describe('refuses a hub that', () => {
  const files = { 'train.jsonl': '{"prompt":"a","completion":"b"}\n'.repeat(300) };
  beforeEach(() => void hub.add({ kind: 'dataset', id: 'ada/rows', files }));

  test.each([
    '../train.jsonl',
    '/etc/train.jsonl',
    'a/../../train.jsonl',
    'C:\\train.jsonl',
    'a\0/train.jsonl',
    'nul/train.jsonl',
    'train/nul.jsonl',
  ])('lists the name %j', async (path) => {
    hub.faults = { extraPaths: [path] };
    await expect(plan('hub:ada/rows:**', 'dataset')).rejects.toMatchObject({
      code: 'bad_file',
      message: expect.stringContaining('which'),
    });
  });

  test('lists two names that are one file on some systems', async () => {
    hub.faults = { extraPaths: ['Train.jsonl'] };
    await expect(plan('hub:ada/rows', 'dataset')).rejects.toThrow(/are one file/);
  });

  test.each([
    ['more', 1000],
    ['less', -1000],
  ])('lists a size with %s bytes than it sends', async (_, by) => {
    hub.faults = { listedSize: (_path, size) => size + by };
    await expect(download('hub:ada/rows', { kind: 'dataset' })).rejects.toMatchObject({
      code: 'bad_file',
      message: expect.stringContaining('otherwise than it sends it'),
    });
  });

  test('lists more bytes than any disk has', async () => {
    hub.faults = { listedSize: () => 2 ** 49 };
    await expect(download('hub:ada/rows', { kind: 'dataset' })).rejects.toMatchObject({ code: 'disk_full' });
    hub.faults = { listedSize: () => 1e300 };
    await expect(plan('hub:ada/rows', 'dataset')).rejects.toMatchObject({ code: 'bad_file' });
  });

  test.each(['https://evil.example/x', 'file:///etc/passwd', 'http://user:pass@127.0.0.1/x'])(
    'sends downloads on to %s',
    async (redirectTo) => {
      hub.faults = { redirectTo };
      await expect(download('hub:ada/rows', { kind: 'dataset' })).rejects.toMatchObject({
        code: 'bad_file',
        message: expect.stringContaining('no place of this hub'),
      });
    },
  );

  test('sends downloads round in circles', async () => {
    hub.faults = { redirectTo: `${hub.url}/datasets/ada/rows/resolve/main/train.jsonl` };
    await expect(download('hub:ada/rows', { kind: 'dataset' })).rejects.toThrow(/in circles/);
  });

  test('continues its list elsewhere', async () => {
    hub.add({ kind: 'dataset', id: 'ada/rows', files: { ...files, 'a.txt': '', 'b.txt': '', 'c.txt': '' } });
    hub.faults = { nextPageAt: 'http://127.0.0.1:9' };
    await expect(plan('hub:ada/rows', 'dataset', 'hf_secret')).rejects.toThrow(/continues its list/);
  });

  test('cannot go on in the midst of a file', async () => {
    hub.faults = { cut: { after: 2000, times: 1 }, ignoreRange: true };
    await expect(download('hub:ada/rows', { kind: 'dataset' })).rejects.toThrow(/cannot go on/);
  });
});

test('a gated model: terms and token are named, the token goes to the hub alone and is nowhere told', async () => {
  hub.add({ kind: 'model', id: 'ada/gated', files: modelFiles, gatedFor: 'hf_right' });
  expect((await plan('hub:ada/gated')).gated).toBe(true);
  await expect(download('hub:ada/gated')).rejects.toMatchObject({
    code: 'unauthorized',
    mend: expect.stringContaining(`Accept the terms at ${hub.url}/ada/gated, then set a token with`),
  });
  const refused = await download('hub:ada/gated', { token: 'hf_wrong' }).catch((error: unknown) => error);
  expect(refused).toMatchObject({
    code: 'unauthorized',
    mend: expect.stringContaining('account of your token'),
  });
  expect(JSON.stringify([refused, (refused as Error).stack])).not.toContain('hf_wrong');
  await download('hub:ada/gated', { token: 'hf_right' });
});

test('what is not there is named', async () => {
  hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  await expect(plan('hub:ada/other')).rejects.toMatchObject({ code: 'not_found' });
  await expect(plan('hub:ada/tiny', 'dataset')).rejects.toThrow(/no dataset 'ada\/tiny'/);
  await expect(plan('hub:ada/tiny@v9')).rejects.toThrow(/no revision 'v9'/);
  await expect(plan('hub:ada/tiny:none.gguf')).rejects.toMatchObject({
    code: 'not_found',
    mend: expect.stringContaining('README.md'),
  });
});

test('a hub that is busy for a while, then silent, then gone', async () => {
  hub.add({ kind: 'model', id: 'ada/tiny', files: modelFiles });
  const found = await plan('hub:ada/tiny');
  const options = { signal: new AbortController().signal, stallMs: 100, report: () => undefined };
  hub.faults = { busy: 3 };
  await expect(downloadFiles(found, undefined, { ...options, retryMs: [1, 1] })).rejects.toMatchObject({
    code: 'network_unavailable',
  });
  hub.faults = { slowMs: 300 };
  await expect(downloadFiles(found, undefined, { ...options, retryMs: [] })).rejects.toThrow(/silent for/);
  hub.faults = { busy: 1 };
  await downloadFiles(found, undefined, { ...options, retryMs: [1, 1] });
  await hub.close();
  await expect(plan('hub:ada/tiny')).rejects.toMatchObject({
    code: 'network_unavailable',
    message: expect.stringContaining('cannot be reached'),
  });
});
