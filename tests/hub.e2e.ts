/** Models and datasets of a hub through the command line, against one on this machine. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Mix } from '../core/shared/dataset/recipe.ts';
import type { Source } from '../core/shared/dataset/source.ts';
import type { HubPlan } from '../core/shared/hub/hubReference.ts';
import type { Model } from '../core/shared/model/model.ts';
import { openLoopbackHub, type LoopbackHub } from './support/loopbackHub.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { startRealWorkbench, type RealWorkbench } from './support/realWorkbench.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const rows = (from: number) =>
  Array.from(
    { length: 40 },
    (_, i) =>
      `${JSON.stringify({ question: `What is ${from + i} + 1?`, answer: `It is ${from + i + 1}.` })}\n`,
  ).join('');

describe.runIf(needs('addon', 'the hub through the command line'))('the hub', () => {
  let hub: LoopbackHub;
  let caravan: CaravanHome;
  let commit: string;
  let weights: Buffer;

  beforeAll(async () => {
    hub = await openLoopbackHub();
    caravan = makeCaravanHome({
      HF_ENDPOINT: hub.url,
      HF_TOKEN: '',
      HF_HOME: '/nonexistent',
      HTTP_PROXY: '',
    });
    const dir = writeTinyModel(join(caravan.folder, 'tiny'));
    const files = Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name))]));
    weights = files['model.safetensors']!;
    ({ commit } = hub.add({ kind: 'model', id: 'ada/tiny', files, revisions: ['v1'] }));
    hub.add({ kind: 'model', id: 'ada/gated', files, gatedFor: 'hf_right' });
    hub.add({
      kind: 'dataset',
      id: 'ada/sums',
      files: {
        'README.md': '',
        'data/train-0.jsonl': rows(0),
        'data/train-1.jsonl': rows(40),
        'data/test.jsonl': rows(80),
      },
    });
  });
  afterAll(async () => {
    await caravan?.endHost();
    await hub?.close();
  });

  const folder = () => join(caravan.home, 'hub', 'models', 'ada--tiny', commit);

  test('shows what a download would bring', async () => {
    const plan = await caravan.json<HubPlan>('hub', 'show', 'ada/sums', '--dataset');
    expect(plan.files.map(({ path }) => path)).toEqual(['data/train-0.jsonl', 'data/train-1.jsonl']);
    const { code, stderr } = await caravan.run('hub', 'show', 'ada/none');
    expect([code, stderr]).toEqual([2, expect.stringContaining("there is no model 'ada/none'")]);
  });

  test('a download goes on where it ended when its host was killed', async () => {
    hub.faults = { slowMs: 40 };
    const { ended } = caravan.start('model', 'add', 'hub:ada/tiny@v1');
    const part = join(folder(), 'model.safetensors.caravan-partial');
    const arrived = () => (existsSync(part) ? statSync(part).size : 0);
    for (let waited = 0; arrived() < 50_000 && waited < 60_000; waited += 10) await sleep(10);
    process.kill(caravan.hostPid()!, 'SIGKILL');
    expect((await ended).code).toBe(4);
    await sleep(300);
    const kept = arrived();
    expect(kept).toBeGreaterThan(40_000);
    expect(kept).toBeLessThan(weights.length);
    hub.faults = {};
    const before = hub.requests.length;
    const model = await caravan.json<Model>('model', 'add', 'hub:ada/tiny@v1');
    expect(model).toMatchObject({
      name: 'tiny',
      dir: folder(),
      hub: { id: 'ada/tiny', revision: 'v1', commit },
    });
    const ranges = hub.requests.slice(before).flatMap(({ range }) => (range === undefined ? [] : [range]));
    expect(ranges).toContain(`bytes=${kept}-`);
    expect(readFileSync(join(folder(), 'model.safetensors')).equals(weights)).toBe(true);
  });

  test('what was downloaded is a model like any other, and pinned it needs no network', async () => {
    const local = await caravan.json<Model>('model', 'inspect', join(caravan.folder, 'tiny'));
    const asked = hub.requests.length;
    const model = await caravan.json<Model>('model', 'add', `hub:ada/tiny@${commit}`, '--name', 'pinned');
    expect(model).toMatchObject({ name: 'pinned', parameters: local.parameters, hub: { revision: commit } });
    expect(hub.requests).toHaveLength(asked);
    const { stdout } = await caravan.run('model', 'inspect', 'pinned');
    expect(stdout).toContain(folder());
  });

  test('a gated model names the terms; a kept token opens it and is nowhere told', async () => {
    const refused = await caravan.run('model', 'add', 'hub:ada/gated');
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(
      `Accept the terms at ${hub.url}/ada/gated, then set a token with caravan hub token`,
    );
    const setting = caravan.start('hub', 'token');
    expect((await setting.ended).code).toBe(2);
    const kept = await caravan.runWithInput('hf_right\n', 'hub', 'token');
    expect([kept.code, kept.stdout]).toEqual([
      0,
      expect.stringContaining(`The token for ${hub.url} is kept`),
    ]);
    expect((await caravan.run('hub', 'status')).stdout).toContain('kept in the home');
    const added = await caravan.json<Model>('model', 'add', 'hub:ada/gated');
    expect(added.hub?.id).toBe('ada/gated');
    expect(readFileSync(join(caravan.home, 'host.log'), 'utf8')).not.toContain('hf_right');
    await caravan.run('hub', 'token', '--forget');
    expect((await caravan.run('hub', 'status')).stdout).toContain('token: none');
  });

  test('a dataset by import and in a recipe', async () => {
    const source = await caravan.json<Source>('import', 'hub:ada/sums');
    expect(source).toMatchObject({
      name: 'sums',
      rows: 80,
      format: 'question-answer',
      hub: [{ id: 'ada/sums' }],
    });
    const recipe = (line: string) => `name: sums\nsources:\n  - {name: sums, ${line}, count: 50}\n`;
    caravan.write('a.yaml', recipe('hub: ada/sums'));
    caravan.write('b.yaml', recipe("path: 'hub:ada/sums:data/train-*.jsonl'"));
    const first = await caravan.json<Mix>('mix', 'a.yaml');
    expect(first.rows).toBe(50);
    const asked = hub.requests.filter(({ path }) => path.includes('resolve')).length;
    expect((await caravan.json<Mix>('mix', 'a.yaml')).contentHash).toBe(first.contentHash);
    expect((await caravan.json<Mix>('mix', 'b.yaml')).rows).toBe(50);
    expect(hub.requests.filter(({ path }) => path.includes('resolve'))).toHaveLength(asked);
  });

  test('a hub that cannot be reached', async () => {
    await hub.close();
    const { code, stderr } = await caravan.run('import', 'hub:ada/others');
    expect(code).toBe(3);
    expect(stderr).toMatch(/cannot be reached: .*\n.*HTTPS_PROXY/s);
  });
});

const inBrowser = needs('browser') && needs('page') && needs('addon');

describe.runIf(inBrowser)('the hub in the window', () => {
  let hub: LoopbackHub;
  let bench: RealWorkbench;

  beforeAll(async () => {
    hub = await openLoopbackHub();
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_HOME', '/nonexistent');
    hub.add({
      kind: 'dataset',
      id: 'ada/sums',
      files: { 'README.md': '', 'train.jsonl': rows(0).repeat(4) },
    });
    hub.add({
      kind: 'dataset',
      id: 'ada/closed',
      files: { 'train.jsonl': rows(0).repeat(4) },
      gatedFor: 'hf_right',
    });
    bench = await startRealWorkbench();
  });
  afterAll(async () => {
    await bench?.close();
    await hub?.close();
    vi.unstubAllEnvs();
  });

  test('a dataset is shown before it is downloaded, then downloaded, imported and kept with its commit', async () => {
    const { page, client } = bench;
    await bench.open('/datasets?import=1');
    const dialog = page.getByRole('dialog', { name: 'Import files' });
    await dialog.getByRole('textbox', { name: /Paths/ }).fill('hub:ada/none');
    await dialog.getByText("there is no dataset 'ada/none'").waitFor();
    await dialog.getByRole('textbox', { name: /Paths/ }).fill('hub:ada/sums');
    await dialog.getByText('train.jsonl', { exact: true }).waitFor();
    await dialog.getByText('1 other file not needed: README.md').waitFor();
    expect(await bench.look('import-hub')).toEqual([]);
    await dialog.getByRole('button', { name: 'Import', exact: true }).click();
    await dialog.waitFor({ state: 'detached' });
    await page.getByRole('link', { name: 'sums-2', exact: true }).waitFor();
    const source = (await client.call('listSources', {})).find(({ name }) => name === 'sums-2')!;
    expect(source).toMatchObject({ rows: 160, hub: [{ id: 'ada/sums', revision: 'main' }] });
    await bench.open(`/datasets/sources/${source.id}?view=about`);
    await page.getByText(source.hub![0]!.commit).first().waitFor();
  });

  test('a gated dataset asks for a token in the window, and takes it', async () => {
    const { page } = bench;
    await bench.open('/datasets?import=1');
    const dialog = page.getByRole('dialog', { name: 'Import files' });
    await dialog.getByRole('textbox', { name: /Paths/ }).fill('hub:ada/closed');
    const token = dialog.getByLabel(/Token of the hub/);
    await token.fill('hf_right');
    await token.press('Enter');
    await expect.poll(async () => (await bench.client.call('hubStatus', {})).token).toBe('home');
    await expect.poll(() => token.inputValue()).toBe('');
    await dialog.getByRole('button', { name: 'Import', exact: true }).click();
    await page.getByRole('link', { name: 'closed', exact: true }).waitFor();
  });
});
