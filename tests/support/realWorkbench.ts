/** The built page in a real browser over a real host, with a tiny model and a mix of two sources: what screens are tested with. */
import { AxeBuilder } from '@axe-core/playwright';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium, type Page } from 'playwright-core';
import { connectOrStart } from '../../core/host/connect.ts';
import type { Client } from '../../core/shared/contract/client.ts';
import { isEnded, type Job } from '../../core/shared/job/job.ts';
import type { Run } from '../../core/shared/run/run.ts';
import type { RunConfigInput } from '../../core/shared/run/runConfig.ts';
import { browserPath } from './skip.ts';
import { writeTinyModel } from './tinyModel.ts';

const shots = fileURLToPath(new URL('../../out/test/screenshots/', import.meta.url));

/** A run of the tiny model that takes a second or two. */
export const tinyRun = {
  model: 'tiny',
  mix: 'both',
  baseDtype: 'f32',
  computeDtype: 'f32',
  loraRank: 4,
  numExperts: 4,
  adapterDim: 8,
  batchSize: 8,
  microBatchSize: 2,
  seqLen: 128,
  lr: 0.003,
  maxSteps: 12,
  evalSteps: 6,
  saveSteps: 6,
  threads: 1,
} as const satisfies RunConfigInput;

export interface RealWorkbench {
  readonly folder: string;
  readonly home: string;
  readonly client: Client;
  readonly page: Page;
  readonly origin: string;
  /** Everything the page complained about in its console. */
  readonly complaints: string[];
  open(path: string): Promise<unknown>;
  finished(job: Job): Promise<Job>;
  /** Trains and waits for the end. */
  train(config: RunConfigInput): Promise<Run>;
  /** Screenshots in both themes at a laptop's and a desk's size. @returns what axe found in either theme */
  look(name: string): Promise<string[]>;
  close(): Promise<void>;
}

export async function startRealWorkbench(): Promise<RealWorkbench> {
  mkdirSync(shots, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), 'workbench-'));
  const home = join(folder, 'home');
  const client = await connectOrStart({ home });

  async function finished(job: Job): Promise<Job> {
    let now = job;
    while (!isEnded(now.state)) {
      await sleep(50);
      now = await client.call('getJob', { id: job.id });
    }
    if (now.error) throw new Error(`${now.title}: ${now.error.message}`);
    return now;
  }
  async function train(config: RunConfigInput): Promise<Run> {
    let run = await client.call('startRun', { config });
    while (run.endedAt === null) {
      await sleep(100);
      run = await client.call('getRun', { id: run.id });
    }
    if (run.state !== 'completed') throw new Error(`${run.name}: ${run.state}: ${run.error?.message}`);
    return run;
  }

  writeTinyModel(join(folder, 'tiny'));
  const rows = {
    sums: Array.from({ length: 200 }, (_, index) => {
      const [a, b] = [index % 17, index % 13];
      return {
        question: `What is ${a} plus ${b}?`,
        answer: `${a} plus ${b} is ${a + b}, item ${index}.`,
      };
    }),
    animals: Array.from({ length: 100 }, (_, index) => ({
      question: `Where does camel ${index} live?`,
      answer: `Camel ${index} lives in the desert.`,
    })),
  };
  for (const [name, list] of Object.entries(rows)) {
    const file = join(folder, `${name}.jsonl`);
    writeFileSync(file, `${list.map((row) => JSON.stringify(row)).join('\n')}\n`);
    await finished(await client.call('importSource', { files: [file], name }));
  }
  await finished(await client.call('addModel', { path: join(folder, 'tiny'), name: 'tiny' }));
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
  await finished(await client.call('buildMix', { baseDir: folder, recipe }));

  const browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    reducedMotion: 'reduce',
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const complaints: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  const { url } = await client.call('startServe', { port: 0 });
  await page.goto(url);
  // Before its first screen is there, the page would take an address that comes meanwhile back to where it began.
  await page.getByRole('heading', { name: 'Home', level: 1 }).waitFor();
  const origin = page.url().replace(/#.*$/, '');

  async function look(name: string): Promise<string[]> {
    const found: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      for (const [width, height] of [
        [2560, 1440],
        [1280, 800],
      ] as const) {
        await page.setViewportSize({ width, height });
        await page.waitForTimeout(200);
        await page.screenshot({ path: `${shots}${name}-${width}-${colorScheme}.png` });
      }
      const { violations } = await new AxeBuilder({ page })
        .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
        .analyze();
      for (const { id, nodes } of violations)
        found.push(
          `${name} ${colorScheme}: ${id}: ${nodes.map(({ target }) => target.join(' ')).join(', ')}`,
        );
    }
    await page.emulateMedia({ colorScheme: 'light' });
    return found;
  }

  return {
    folder,
    home,
    client,
    page,
    origin,
    complaints,
    open: (path) => page.goto(`${origin}#${path}`),
    finished,
    train,
    look,
    async close() {
      await browser.close();
      await client.call('shutdownHost', {}).catch(() => undefined);
      client.close();
    },
  };
}
