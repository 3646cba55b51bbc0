/**
 * The workbench in a real browser over a host that follows a script: every screen, by pointer and by keyboard alone,
 * with the page's real Content-Security-Policy. tests/serve.e2e.ts has the real host.
 */
import { AxeBuilder } from '@axe-core/playwright';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startFakeHost, type FakeHost } from './support/fakeHost.ts';
import { browserPath, needs } from './support/skip.ts';

const shots = fileURLToPath(new URL('../out/test/screenshots/', import.meta.url));
const runnable = needs('browser') && needs('page');

let browser: Browser;
let context: BrowserContext;
let page: Page;
let host: FakeHost;
/** Everything the page complained about: none of it is wanted. */
let complaints: string[];

describe.runIf(runnable)('the workbench', () => {
  beforeAll(async () => {
    mkdirSync(shots, { recursive: true });
    browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
  });
  afterAll(() => browser.close());
  beforeEach(async () => {
    host = await startFakeHost({ tokenEveryMs: 4 });
    complaints = [];
    await openPage({});
  });
  afterEach(async () => {
    await context.close();
    await host.close();
    expect(complaints).toEqual([]);
  });

  async function openPage(options: Parameters<Browser['newContext']>[0]): Promise<void> {
    await context?.close();
    context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      reducedMotion: 'reduce',
      ...options,
    });
    page = await context.newPage();
    page.on('console', (message) => {
      // A refused socket is what some tests are about.
      if (message.type() === 'error' && !message.text().includes('WebSocket'))
        complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
  }
  const open = (path: string) => page.goto(`${host.url}#${path}`);
  const heading = (name: string) => page.getByRole('heading', { level: 1, name });

  test('home says what is under way, what ended, what the machine has', async () => {
    await open('/');
    await page.getByRole('region', { name: 'Under way' }).or(page.locator('#under-way')).first().waitFor();
    await page.getByText('AMD Ryzen 7 7840U').waitFor();
    await expect.poll(() => page.getByRole('link', { name: 'demo-lora-r64' }).count()).toBeGreaterThan(0);
    expect(await page.getByText('Waiting to be resumed').isVisible()).toBe(true);
    // What was looked at is offered again.
    await open('/runs/r2');
    await heading('demo-lora-r64').waitFor();
    await open('/');
    await page.getByRole('heading', { name: 'Continue where you were' }).waitFor();
    await page.locator('.visit').first().click();
    await heading('demo-lora-r64').waitFor();
  });

  test('an empty host: each screen says what would fill it', async () => {
    await host.close();
    host = await startFakeHost({ empty: true });
    for (const [path, command] of [
      ['/', 'npm run demo'],
      ['/experiments', 'npx caravan train run.yaml'],
      ['/chat', 'npx caravan model add DIR'],
      ['/jobs', 'npm run demo'],
    ] as const) {
      await open(path);
      await page.getByText(command, { exact: true }).first().waitFor();
    }
    await page.screenshot({ path: `${shots}empty.png` });
  });

  test('a run that trains: figures and curves follow without reading history again', async () => {
    await open('/runs/r1');
    await page.getByRole('slider', { name: /^Loss by step/ }).waitFor();
    const reads = () => host.called.filter(({ name }) => name === 'readSeries').length;
    await expect.poll(reads).toBe(1);
    for (let i = 0; i < 5; i++) host.step();
    const chart = page.getByRole('slider', { name: /^Loss by step/ });
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('217');
    expect(await page.locator('.figures').textContent()).toContain('217');
    expect(reads()).toBe(1);
    // The curve is drawn, not merely announced.
    const inked = await page
      .locator('.chart canvas')
      .first()
      .evaluate((canvas: HTMLCanvasElement) => {
        const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, index) => index % 4 === 3 && value > 0).length;
      });
    expect(inked).toBeGreaterThan(1000);
    await page.reload();
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('217');
  });

  test('pause, continue, stop: the buttons are those of the state', async () => {
    await open('/runs/r1');
    await page.getByRole('button', { name: 'Pause', exact: true }).click();
    await page.getByRole('button', { name: 'Continue', exact: true }).click();
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Cancel' }).click();
    expect(host.runs[0]!.run.state).toBe('running');
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await page.getByRole('button', { name: 'Stop with a checkpoint' }).click();
    await page.getByRole('button', { name: 'Resume', exact: true }).waitFor();
    expect(host.called.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['pauseRun', 'continueRun', 'stopRun']),
    );
    await page.getByRole('button', { name: 'Add a note' }).click();
    await page.getByRole('textbox', { name: 'Note' }).fill('stopped to look');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'stopped to look' }).waitFor();
    expect(host.runs[0]!.run.note).toBe('stopped to look');
  });

  test('a run that was interrupted: what happened, and one click to go on', async () => {
    await open('/runs/r3');
    await page.getByRole('heading', { name: 'The engine ended without being asked to' }).waitFor();
    await page.getByText('signal SIGKILL').waitFor();
    await page.screenshot({ path: `${shots}crash.png` });
    await page.getByRole('button', { name: 'Resume from step-000120' }).click();
    await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
    expect(await page.getByText('The engine ended').count()).toBe(0);
  });

  test('a spike leads to the rows of its step', async () => {
    await open('/runs/r2');
    const chart = page.getByRole('slider', { name: /^Loss by step/ });
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('480');
    const box = (await chart.locator('.u-over').boundingBox())!;
    await page.mouse.click(box.x + (box.width * (193 - 1)) / 479, box.y + 40);
    const rows = page.getByRole('complementary', { name: /^Rows of step/ });
    await rows.waitFor();
    const step = Number((await rows.getAttribute('aria-label'))!.replace(/\D/g, ''));
    expect(Math.abs(step - 193)).toBeLessThanOrEqual(1);
    await open('/runs/r2?step=193');
    await page.getByRole('heading', { name: 'Step 193' }).waitFor();
    const first = rows.getByRole('listitem').first();
    await first.getByRole('button').click();
    await first.getByText('assistant', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Step after' }).click();
    await page.getByRole('heading', { name: 'Step 194' }).waitFor();
    expect(page.url()).toContain('step=194');
  });

  test('a zoom into merged points reads that part again in full, in all charts', async () => {
    await open('/runs/r7');
    const chart = page.getByRole('slider', { name: /^Loss by step/ });
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('2400');
    const reads = () => host.called.filter(({ name }) => name === 'readSeries');
    expect(reads()).toHaveLength(1);
    const box = (await chart.locator('.u-over').boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.25, box.y + 80);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 90, { steps: 5 });
    await page.mouse.up();
    await expect.poll(() => reads().length).toBe(2);
    const { fromStep, toStep } = reads()[1]!.params as { fromStep: number; toStep: number };
    // With as much again on either side, so that the view can move.
    expect(fromStep).toBeLessThan(60);
    expect(Math.abs(toStep - 1800)).toBeLessThan(60);
    await chart.focus();
    await page.keyboard.press('Shift+ArrowRight');
    await page.keyboard.press('Shift+ArrowRight');
    expect(reads()).toHaveLength(2);
    const buttons = page.getByRole('button', { name: 'Show all' });
    expect(await buttons.count()).toBeGreaterThan(4);
    expect(await page.getByRole('complementary', { name: /^Rows/ }).count(), 'a drag picks no step').toBe(0);
    await chart.focus();
    await page.keyboard.press('Escape');
    await expect.poll(() => buttons.count()).toBe(0);
    expect(reads()).toHaveLength(2);
  });

  test('from one run to another: nothing of the first stays', async () => {
    await open('/runs/r7');
    const chart = page.getByRole('slider', { name: /^Loss by step/ });
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('2400');
    await page.keyboard.press('Control+p');
    await page.keyboard.type('lr-2e');
    await page.getByRole('option', { name: /lr-2e-2/ }).waitFor();
    await page.keyboard.press('Enter');
    await heading('lr-2e-2').waitFor();
    await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('31');
    await page.getByText('The loss was not finite for three steps in a row').waitFor();
  });

  test('experiments: sort, filter, choose, compare', async () => {
    await open('/runs');
    const names = () => page.locator('tbody td.name a').allTextContents();
    await expect.poll(async () => (await names()).length).toBe(7);
    expect(page.url()).toContain('/experiments');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await expect.poll(names).toEqual([...(await names())].sort());
    const filter = page.getByRole('searchbox', { name: 'Filter runs' });
    await filter.fill('method = pesc and state = completed');
    await expect.poll(async () => (await names()).sort()).toEqual(['no-balance', 'pesc-16-experts']);
    expect(page.url()).toContain('filter=');
    // What is wrong is shown under its place; what was found last stays.
    await filter.fill('method = pesc and los < 1');
    await page.getByText('do you mean loss?').waitFor();
    expect(await page.locator('#filter-problem pre').textContent()).toBe(`${' '.repeat(18)}^^^`);
    expect((await names()).sort()).toEqual(['no-balance', 'pesc-16-experts']);
    await filter.fill('');
    await page.getByRole('combobox', { name: 'Group by' }).selectOption('method');
    await page
      .getByRole('rowheader', { name: /^lora 1 run/ })
      .or(page.getByText('1 run', { exact: true }))
      .first()
      .waitFor();
    await page.getByRole('combobox', { name: 'Group by' }).selectOption('');
    await page.getByRole('checkbox', { name: /demo-lora-r64/ }).check();
    await page.getByRole('checkbox', { name: /no-balance/ }).check();
    await page.getByRole('button', { name: /^Compare/ }).click();
    await heading('Comparing 2 runs').waitFor();
    await page.getByRole('rowheader', { name: 'method' }).waitFor();
    expect(await page.getByRole('rowheader', { name: 'seqLen' }).count()).toBe(0);
    await page.getByRole('checkbox', { name: 'Only differences' }).uncheck();
    await page.getByRole('rowheader', { name: 'seqLen' }).waitFor();
  });

  test('experiments by keyboard alone: star, tag, archive, trash and back', async () => {
    await open('/experiments');
    await page.getByRole('link', { name: 'demo-lora-r64' }).waitFor();
    const marks = () => {
      const { starred, tags, archived, trashedAt } = host.runs.find(({ run }) => run.id === 'r2')!.run;
      return { starred, tags, archived, trashed: trashedAt !== null };
    };
    await page.keyboard.press('/');
    await page.keyboard.type('lora');
    await page.keyboard.press('ArrowDown');
    await expect
      .poll(() => page.evaluate(() => document.activeElement?.textContent))
      .toContain('demo-lora-r64');
    await page.keyboard.press('s');
    await expect.poll(marks).toMatchObject({ starred: true });
    await page.keyboard.press('l');
    await page.getByRole('dialog', { name: 'Tags of demo-lora-r64' }).waitFor();
    await page.getByRole('textbox', { name: 'New tag' }).focus();
    await page.keyboard.type('not a tag');
    await page.getByText('a tag is one word').waitFor();
    await page.keyboard.press('Control+a');
    await page.keyboard.type('paper');
    await page.keyboard.press('Enter');
    await expect.poll(marks).toMatchObject({ tags: ['paper'] });
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.keyboard.press('e');
    await expect.poll(marks).toMatchObject({ archived: true });
    await page.getByRole('button', { name: 'Undo' }).focus();
    await page.keyboard.press('Enter');
    await expect.poll(marks).toMatchObject({ archived: false });
    await page.locator('tbody tr[data-index="0"]').focus();
    await page.keyboard.press('#');
    await expect.poll(marks).toMatchObject({ trashed: true });
    await page.getByText('No run matches this filter.').waitFor();
    await page.getByRole('button', { name: 'Restore' }).focus();
    await page.keyboard.press('Enter');
    await expect.poll(marks).toMatchObject({ trashed: false });
  });

  test('columns and their order are remembered', async () => {
    await open('/experiments');
    await page.getByRole('button', { name: 'Columns' }).click();
    await page.getByRole('searchbox', { name: 'Find a column' }).fill('learning');
    await page.getByRole('checkbox', { name: /Learning rate/ }).check();
    for (let i = 0; i < 20; i++)
      await page.getByRole('button', { name: 'Move Learning rate to the left' }).click();
    await page.keyboard.press('Escape');
    const headers = () => page.locator('thead th button').allTextContents();
    expect((await headers()).map((text) => text.trim()).slice(0, 3)).toEqual([
      'Run',
      'Learning rate',
      'State',
    ]);
    await page.reload();
    await expect.poll(async () => (await headers())[1]?.trim()).toBe('Learning rate');
    await page.getByRole('cell', { name: '4e-4' }).waitFor();
  });

  test('10,000 runs: the last row is one key away, and few rows are in the page', async () => {
    const [first] = host.runs;
    for (let i = 0; i < 10_000; i++)
      host.runs.push({
        ...first!,
        run: { ...first!.run, id: `x${i}`, name: `many-${i}`, state: 'completed', createdAt: i },
      });
    await open('/experiments');
    await expect
      .poll(() => page.locator('table').first().getAttribute('aria-rowcount'), { timeout: 20_000 })
      .toBe('10008');
    await page.locator('tbody tr[data-index="0"]').focus();
    await page.keyboard.press('End');
    await expect
      .poll(() => page.evaluate(() => document.activeElement?.getAttribute('data-index')))
      .toBe('10006');
    expect(await page.locator('tbody tr').count()).toBeLessThan(80);
  });

  test('chat: an answer streams, can be stopped, copied, and fails in its place', async () => {
    await open('/chat');
    const question = page.getByRole('textbox', { name: 'Question' });
    await question.fill('Write a Python function');
    await page.keyboard.press('Enter');
    await page.getByText('ended by itself').waitFor();
    await page.getByRole('button', { name: 'Copy', exact: true }).waitFor();
    await page.getByText('image not loaded: a chart').waitFor();
    await expect.poll(() => page.locator('.code-block span[style*="keyword"]').count()).toBeGreaterThan(0);
    expect(page.url()).toMatch(/#\/chat\/t\d+/);
    await question.fill('fail');
    await page.keyboard.press('Enter');
    await page.getByText('Pause the run that trains, or choose a smaller model.').waitFor();
    // A reload comes back to the thread as the host keeps it.
    await page.reload();
    await page.getByText('ended by itself').waitFor();
  });

  test('chat: two models on one question, and stop', async () => {
    await host.close();
    host = await startFakeHost({ tokenEveryMs: 60 });
    await open('/chat');
    await page.getByRole('button', { name: 'Compare' }).click();
    await page.getByRole('region', { name: 'Model beside' }).waitFor();
    await page.getByRole('textbox', { name: 'Question' }).fill('Write a Python function');
    await page.keyboard.press('Enter');
    await expect.poll(() => page.locator('.answer[aria-busy]').count()).toBe(2);
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await expect.poll(() => page.getByText('stopped ·').count()).toBe(2);
    const asked = host.called.filter(({ name }) => name === 'generateAnswer');
    expect(new Set(asked.map(({ params }) => (params as { model: string }).model)).size).toBe(2);
    expect(page.url()).toMatch(/#\/chat\/t\d+$/);
    // A reload comes back to both panes.
    await page.reload();
    await page.getByRole('region', { name: 'Model beside' }).waitFor();
  });

  test('a lost host: said at once, reconnected by itself, state read again', async () => {
    await open('/runs/r1');
    await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
    host.goAway();
    await page.getByText("Caravan's host does not answer.").waitFor();
    host.step();
    host.comeBack();
    await page.getByText("Caravan's host does not answer.").waitFor({ state: 'detached' });
    await expect
      .poll(() => page.getByRole('slider', { name: /^Loss by step/ }).getAttribute('aria-valuemax'))
      .toBe('213');
    host.step();
    await expect
      .poll(() => page.getByRole('slider', { name: /^Loss by step/ }).getAttribute('aria-valuemax'))
      .toBe('214');
  });

  test('by keyboard alone: to a run, its rows, its settings, a chat, the job centre', async () => {
    await open('/');
    await page.getByText('AMD Ryzen 7 7840U').waitFor();
    await page.keyboard.press('Control+p');
    await page.getByRole('dialog').waitFor();
    await page.keyboard.type('balance-0');
    await page.getByRole('option', { name: /balance-0.05/ }).waitFor();
    await page.keyboard.press('Enter');
    await heading('balance-0.05').waitFor();
    await page.getByRole('slider', { name: /^Loss by step/ }).focus();
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('Enter');
    await page.getByRole('complementary', { name: 'Rows of step 136' }).waitFor();
    await page.getByRole('button', { name: 'Step before' }).focus();
    await page.keyboard.press('Escape');
    await page.getByRole('complementary', { name: /^Rows/ }).waitFor({ state: 'detached' });
    await page.getByRole('tab', { name: 'Course' }).focus();
    await page.keyboard.press('ArrowRight');
    await page.getByRole('heading', { name: 'Configuration' }).waitFor();
    await page.getByRole('tab', { name: 'Settings' }).press('g');
    await page.keyboard.press('c');
    await page.getByRole('textbox', { name: 'Question' }).waitFor();
    await page.keyboard.press('Control+j');
    await page.getByRole('region', { name: 'Job centre' }).waitFor();
    await page.keyboard.press('Control+j');
    await page.getByRole('region', { name: 'Job centre' }).waitFor({ state: 'detached' });
    await page.keyboard.press('Control+b');
    await page.getByRole('button', { name: 'Expand the side bar' }).waitFor();
    await page.keyboard.press('Control+Shift+p');
    await page.keyboard.type('theme dark');
    await page.getByRole('option', { name: /Theme: dark/ }).waitFor();
    await page.keyboard.press('Enter');
    await expect.poll(() => page.evaluate(() => document.documentElement.dataset['theme'])).toBe('dark');
    // The choice holds before the first paint of the next visit.
    await page.reload();
    expect(await page.evaluate(() => document.documentElement.dataset['theme'])).toBe('dark');
  });

  test.each(['light', 'dark'] as const)('axe finds nothing on any screen (%s)', async (colorScheme) => {
    await openPage({ colorScheme });
    const screens = {
      home: '/',
      train: '/train?from=r2',
      runs: '/experiments',
      preferences: '/settings',
      run: '/runs/r1?step=193',
      crash: '/runs/r3',
      failed: '/runs/r5',
      settings: '/runs/r2?view=settings',
      log: '/runs/r2?view=log',
      compare: '/experiments/compare/r1,r2',
      chat: '/chat/t1',
      'new chat': '/chat',
      jobs: '/jobs?log=j2',
    };
    const found: string[] = [];
    for (const [name, path] of Object.entries(screens)) {
      await open(path);
      await page.waitForLoadState('networkidle');
      await page.locator('h1').first().waitFor();
      await page.waitForTimeout(250);
      const { violations } = await new AxeBuilder({ page })
        .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
        .analyze();
      for (const { id, nodes } of violations)
        found.push(`${name}: ${id}: ${nodes.map(({ target }) => target.join(' ')).join(', ')}`);
      await page.screenshot({ path: `${shots}${name}-${colorScheme}.png` });
    }
    expect(found).toEqual([]);
  });
});
