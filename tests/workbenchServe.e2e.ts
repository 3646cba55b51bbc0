/** The workbench over the real host: a run started by the command line is watched, killed, resumed and talked to. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectOrStart } from '../core/host/connect.ts';
import type { Client } from '../core/shared/contract/client.ts';
import { isEnded, type Job } from '../core/shared/job/job.ts';
import { browserPath, needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const command = fileURLToPath(new URL('../bin/caravan.mjs', import.meta.url));
const shots = fileURLToPath(new URL('../out/test/screenshots/', import.meta.url));
const runnable = needs('browser') && needs('page') && needs('addon');

describe.runIf(runnable)('the workbench over the real host', () => {
  const folder = runnable ? mkdtempSync(join(tmpdir(), 'workbench-')) : '';
  const home = join(folder, 'home');
  const complaints: string[] = [];
  let client: Client;
  let browser: Browser;
  let page: Page;
  let origin: string;

  async function done(job: Job): Promise<Job> {
    let now = job;
    while (!isEnded(now.state)) {
      await sleep(100);
      now = await client.call('getJob', { id: job.id });
    }
    expect(now.error).toBeNull();
    return now;
  }
  const runNamed = (ref: string) => client.call('findRun', { ref });
  const open = (path: string) => page.goto(`${origin}#${path}`);
  const chart = () => page.getByRole('slider', { name: /^Loss by step/ });
  const shownStep = async () => Number(await chart().getAttribute('aria-valuemax'));

  beforeAll(async () => {
    mkdirSync(shots, { recursive: true });
    client = await connectOrStart({ home });
    writeTinyModel(join(folder, 'tiny'));
    const sums = Array.from({ length: 240 }, (_, index) => {
      const [a, b] = [index % 17, index % 13];
      return JSON.stringify({
        question: `What is ${a} plus ${b}?`,
        answer: `${a} plus ${b} is ${a + b}, item ${index}.`,
      });
    });
    const animals = Array.from({ length: 120 }, (_, index) =>
      JSON.stringify({
        question: `Where does camel ${index} live?`,
        answer: `Camel ${index} lives in the desert.`,
      }),
    );
    writeFileSync(join(folder, 'sums.jsonl'), `${sums.join('\n')}\n`);
    writeFileSync(join(folder, 'animals.jsonl'), `${animals.join('\n')}\n`);
    for (const name of ['sums', 'animals'])
      await done(await client.call('importSource', { files: [join(folder, `${name}.jsonl`)], name }));
    await done(await client.call('addModel', { path: join(folder, 'tiny'), name: 'tiny' }));
    const recipe = {
      name: 'both',
      seed: 3,
      model: 'tiny',
      seqLen: 128,
      sources: [
        { name: 'sums', source: 'sums', count: 160 },
        { name: 'animals', source: 'animals', count: 80 },
      ],
      validation: { perSource: 8 },
    };
    await done(await client.call('buildMix', { baseDir: folder, recipe }));
    writeFileSync(
      join(folder, 'run.yaml'),
      'name: watched\nmodel: tiny\nmix: both\nbaseDtype: f32\ncomputeDtype: f32\nloraRank: 4\nnumExperts: 4\nadapterDim: 8\n' +
        'batchSize: 8\nmicroBatchSize: 2\nseqLen: 128\nlr: 0.003\nepochs: 1000\nmaxSteps: 20000\nevalSteps: 50\nsaveSteps: 25\nthreads: 1\n',
    );
    browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
    page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    const { url } = await client.call('startServe', { port: 0 });
    await page.goto(url);
    origin = page.url().replace(/#.*$/, '');
  });
  afterAll(async () => {
    await browser?.close();
    await client?.call('shutdownHost', {}).catch(() => undefined);
    client?.close();
  });

  test('a run started on the command line appears, and its curve grows while it trains', async () => {
    await page.getByText('tiny', { exact: true }).first().waitFor();
    const train = spawn(process.execPath, [command, 'train', join(folder, 'run.yaml')], {
      env: { ...process.env, CARAVAN_HOME: home },
      stdio: 'ignore',
    });
    await page
      .getByRole('link', { name: /watched/ })
      .first()
      .click();
    await page.getByRole('heading', { level: 1, name: 'watched' }).waitFor();
    await expect.poll(shownStep, { timeout: 60_000 }).toBeGreaterThan(60);
    const before = await shownStep();
    await expect.poll(shownStep).toBeGreaterThan(before);
    // The terminal that started it is closed; the run goes on.
    train.kill('SIGKILL');
    const then = await shownStep();
    await expect.poll(shownStep).toBeGreaterThan(then + 10);
    await page.getByRole('heading', { name: 'Expert load' }).waitFor();
    await page.screenshot({ path: `${shots}real-run.png` });
  });

  test('a step leads to its real rows', async () => {
    const { id } = await runNamed('watched');
    await open(`/runs/${id}?step=20`);
    const rows = page.getByRole('complementary', { name: 'Rows of step 20' });
    await expect.poll(() => rows.getByRole('listitem').count()).toBe(8);
    await rows.getByRole('listitem').first().getByRole('button').click();
    await rows
      .getByText(/plus|lives in the desert/)
      .first()
      .waitFor();
  });

  test('pause and continue', async () => {
    const { id } = await runNamed('watched');
    await open(`/runs/${id}`);
    await page.getByRole('button', { name: 'Pause', exact: true }).click();
    await page.getByRole('button', { name: 'Continue', exact: true }).waitFor();
    expect((await runNamed('watched')).state).toBe('paused');
    await page.getByRole('button', { name: 'Continue', exact: true }).click();
    await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
  });

  test('chat while it trains', async () => {
    await open('/chat');
    await page.getByRole('textbox', { name: 'Question' }).fill('What is 3 plus 4?');
    await page.keyboard.press('Enter');
    await page.getByText(/tokens\/s · first token after/).waitFor();
    expect((await runNamed('watched')).state).toBe('running');
    await page.reload();
    await page.getByText(/tokens\/s · first token after/).waitFor();
  });

  test('the engine is killed: the page lives, says interrupted, and one click resumes', async () => {
    const { id } = await runNamed('watched');
    await open(`/runs/${id}`);
    await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
    const { processes } = await client.call('systemStatus', {});
    const engine = processes.find(({ name }) => name.startsWith('training'))!;
    process.kill(engine.pid, 'SIGKILL');
    await page.getByRole('heading', { name: 'The engine ended without being asked to' }).waitFor();
    await page.getByText('signal SIGKILL').waitFor();
    await page.screenshot({ path: `${shots}real-crash.png` });
    const kept = Number((await runNamed('watched')).crash!.lastCheckpoint!.match(/step-(\d+)/)![1]);
    await page.getByRole('button', { name: /^Resume from step-/ }).click();
    await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
    await expect.poll(shownStep, { timeout: 30_000 }).toBeGreaterThan(kept + 30);
    await page.getByText('resumed once').waitFor();
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await page.getByRole('button', { name: 'Stop with a checkpoint' }).click();
    await page.getByRole('button', { name: 'Resume', exact: true }).waitFor();
    expect((await runNamed('watched')).state).toBe('stopped');
  });

  test('nothing was complained about in the console', () => {
    expect(complaints).toEqual([]);
  });
});
