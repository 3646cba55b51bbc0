/**
 * How a table of 720,000 rows scrolls in Debian's Chromium over the real host: time between frames, and from a jump until
 * its rows are there. `node tests/scale/measureScrolling.ts [ROWS]`; docs/benchmarks.md has what came out.
 */
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium, type Page } from 'playwright-core';
import { connectOrStart } from '../../core/host/connect.ts';
import { isEnded, type Job } from '../../core/shared/job/job.ts';
import { browserPath } from '../support/skip.ts';

const rows = Number(process.argv[2] ?? 720_000);
const folder = mkdtempSync(join(tmpdir(), 'scrolling-'));
const client = await connectOrStart({ home: join(folder, 'home') });
const say = (what: string, value: unknown) => process.stdout.write(`${what}: ${JSON.stringify(value)}\n`);

async function done(job: Job): Promise<Job> {
  let now = job;
  while (!isEnded(now.state)) {
    await sleep(200);
    now = await client.call('getJob', { id: job.id });
  }
  if (now.error) throw new Error(now.error.message);
  return now;
}
const seconds = ({ startedAt, endedAt }: Job) => (endedAt! - startedAt!) / 1000;

/** Rows of about 900 bytes, each with its own number in its words. */
async function write(file: string): Promise<void> {
  const words =
    'oasis dune camel water salt road night star wind trader silk spice well tent fire song'.split(' ');
  const text = (seed: number, count: number) =>
    Array.from({ length: count }, (_, i) => words[(seed * 7 + i * i * 13 + i) % words.length]).join(' ');
  const stream = createWriteStream(file);
  for (let i = 0; i < rows; i++) {
    const line = JSON.stringify({
      conversations: [
        { from: 'human', value: `Question ${i}: ${text(i, 30 + (i % 40))}?` },
        { from: 'gpt', value: `Answer ${i}: ${text(i + 5, 40 + (i % 120))}.` },
      ],
      source: words[i % 8],
    });
    if (!stream.write(`${line}\n`)) await once(stream, 'drain');
  }
  stream.end();
  await once(stream, 'close');
}

/** Frames while `act` runs: their number, the median, 99th percentile and longest time between them. */
async function frames(page: Page, act: () => Promise<void>): Promise<Record<string, number>> {
  await page.evaluate(() => {
    const times: number[] = [];
    Object.assign(window, { times, counting: true });
    const next = (now: number) => {
      times.push(now);
      if ((window as unknown as { counting: boolean }).counting) requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
  await act();
  const times = await page.evaluate(() => {
    const state = window as unknown as { counting: boolean; times: number[] };
    state.counting = false;
    return state.times;
  });
  const gaps = times
    .slice(1)
    .map((time, index) => time - times[index]!)
    .sort((a, b) => a - b);
  const at = (share: number) =>
    Math.round(gaps[Math.min(gaps.length - 1, Math.floor(share * gaps.length))]! * 10) / 10;
  return { frames: gaps.length, medianMs: at(0.5), p99Ms: at(0.99), longestMs: at(1) };
}

try {
  const file = join(folder, 'rows.jsonl');
  await write(file);
  const imported = await done(await client.call('importSource', { files: [file], name: 'rows' }));
  say('import, s', seconds(imported));
  const of = { kind: 'source' as const, id: imported.subjectId! };
  const { job } = await client.call('openLook', { of });
  say('index, s', seconds(await done(job!)));
  const browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
  for (const deviceScaleFactor of [1, 2]) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, deviceScaleFactor });
    const page = await context.newPage();
    const { url } = await client.call('startServe', { port: 0 });
    await page.goto(url);
    const started = performance.now();
    await page.goto(`${page.url().replace(/#.*$/, '')}#/datasets/sources/${of.id}`);
    await page.locator('#row-0', { hasText: 'Question 0:' }).waitFor();
    say(`pixel ratio ${deviceScaleFactor}: first rows, ms`, Math.round(performance.now() - started));
    const grid = page.getByRole('grid');
    await grid.hover();
    say(
      'wheel, 300 notches of 120 px',
      await frames(page, async () => {
        for (let i = 0; i < 300; i++) {
          await page.mouse.wheel(0, 120);
          await sleep(10);
        }
      }),
    );
    say(
      'scrollbar, 120 places',
      await frames(page, async () => {
        for (let i = 0; i < 120; i++) {
          await grid.evaluate(
            (element, share) => (element.scrollTop = share * element.scrollHeight),
            ((i * 37) % 120) / 120,
          );
          await sleep(30);
        }
      }),
    );
    const waits: number[] = [];
    for (let i = 1; i <= 20; i++) {
      const key = Math.floor((rows * ((i * 7) % 20)) / 20) + 3;
      const from = performance.now();
      await page.getByLabel(/^Go to a row/).fill(String(key));
      await page.keyboard.press('Enter');
      await page.locator(`#row-${key}`, { hasText: `Question ${key}:` }).waitFor();
      waits.push(performance.now() - from);
    }
    waits.sort((a, b) => a - b);
    say('a jump until its rows are there, ms', {
      median: Math.round(waits[10]!),
      longest: Math.round(waits[19]!),
    });
    await grid.focus();
    for (const [key, row] of [
      ['End', rows - 1],
      ['Home', 0],
    ] as const) {
      const from = performance.now();
      await page.keyboard.press(key);
      await page.locator(`#row-${row}`, { hasText: `Question ${row}:` }).waitFor();
      say(`${key}, ms`, Math.round(performance.now() - from));
    }
    await context.close();
  }
  await browser.close();
  const query = (patch: object) => ({
    table: 'rows' as const,
    search: '',
    filters: [],
    sort: null,
    ...patch,
  });
  const timed = async (what: string, patch: object) => {
    const from = performance.now();
    const { total } = await client.call('countLook', { lookId: what, of, query: query(patch) });
    const counted = performance.now();
    await client.call('readLook', { of, query: query(patch), from: Math.floor(total / 2), count: 100 });
    say(what, {
      rows: total,
      ms: Math.round(counted - from),
      windowMs: Math.round(performance.now() - counted),
    });
  };
  await timed('search for a number in the text', { search: '"question 654321"' });
  await timed('search for a word in every row', { search: 'question' });
  await timed('sort by answer length', { sort: { column: 'answerChars', descending: true } });
  await timed('filter by label', { filters: [{ kind: 'oneOf', column: 'label', values: ['camel'] }] });
  const from = performance.now();
  await client.call('describeLook', { of });
  say('statistics, ms', Math.round(performance.now() - from));
  const { processes } = await client.call('systemStatus', {});
  say(
    'memory of the data process, MB',
    Math.round((processes.find(({ name }) => name.includes('data'))?.memoryBytes ?? 0) / 1e6),
  );
} finally {
  await client.call('shutdownHost', {}).catch(() => undefined);
  client.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
