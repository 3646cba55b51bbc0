/** Experiments, the queue and the settings over the real host: what is marked, ordered and freed is so on the disk too. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../core/shared/run/run.ts';
import { startRealWorkbench, tinyRun, type RealWorkbench } from './support/realWorkbench.ts';
import { needs } from './support/skip.ts';

const runnable = needs('browser') && needs('page') && needs('addon', 'the workbench over a real host');

describe.runIf(runnable)('experiments, jobs and settings', () => {
  let bench: RealWorkbench;
  let first: Run;

  beforeAll(async () => {
    bench = await startRealWorkbench();
    first = await bench.train({ ...tinyRun, name: 'first' });
    await bench.train({ ...tinyRun, name: 'second', method: 'lora' });
  }, 180_000);
  afterAll(async () => {
    expect(bench.complaints).toEqual([]);
    await bench.close();
  });
  const row = (name: string) => bench.page.locator('tbody tr').filter({ hasText: name });

  test('runs are filtered, starred, moved to the trash and restored', async () => {
    const { page, client } = bench;
    await bench.open('/experiments');
    await row('first').waitFor();
    expect(await bench.look('experiments')).toEqual([]);
    await page.getByRole('searchbox', { name: 'Filter runs' }).fill('method = pesc and heldOut < 100');
    await row('second').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Star first' }).click();
    await expect.poll(async () => (await client.call('getRun', { id: first.id })).starred).toBe(true);
    await page.getByRole('checkbox', { name: 'Choose first' }).check();
    await page.getByRole('button', { name: 'Trash', exact: true }).click();
    await page.getByText('No run matches this filter.').waitFor();
    const label = readFileSync(join(first.dir, 'metrics.jsonl'), 'utf8').trim().split('\n').at(-1)!;
    expect(JSON.parse(label)).toMatchObject({
      type: 'label',
      starred: true,
      trashedAt: expect.any(Number) as number,
    });
    await page.getByRole('button', { name: 'Restore' }).click();
    await row('first').waitFor();
  }, 120_000);

  test('an overnight queue: held, put into another order by keyboard, started', async () => {
    const { page, client } = bench;
    const start = (name: string) =>
      client.call('startRun', { config: { ...tinyRun, name, maxSteps: 4, evalSteps: 0 }, hold: true });
    const night = [await start('night-1'), await start('night-2')];
    await bench.open('/jobs');
    const items = () =>
      page
        .locator('li[draggable]')
        .evaluateAll((list) => list.map((item) => item.getAttribute('aria-label')));
    await expect.poll(items).toEqual(['1. night-1, held', '2. night-2, held']);
    expect(await bench.look('queue')).toEqual([]);
    await page.locator('li[draggable]').nth(1).focus();
    await page.keyboard.press('Alt+ArrowUp');
    await expect.poll(items).toEqual(['1. night-2, held', '2. night-1, held']);
    await page.locator('li[draggable]').nth(1).dragTo(page.locator('li[draggable]').nth(0));
    await expect.poll(items).toEqual(['1. night-1, held', '2. night-2, held']);
    await page.getByRole('button', { name: 'Start then' }).click();
    await expect.poll(async () => (await client.call('getQueue', {})).startsAt).toBeGreaterThan(Date.now());
    await page.getByRole('button', { name: 'Start now' }).click();
    const ended = async () =>
      Promise.all(night.map(async ({ id }) => (await client.call('getRun', { id })).state));
    await expect.poll(ended, { timeout: 60_000 }).toEqual(['completed', 'completed']);
    const [a, b] = await Promise.all(night.map(({ id }) => client.call('getRun', { id })));
    expect(a!.endedAt!).toBeLessThanOrEqual(b!.startedAt!);
  }, 180_000);

  test('settings: what a clean-up frees is said before, and a token is for its owner alone', async () => {
    const { page, client, home } = bench;
    const { id } = await client.call('findRun', { ref: 'second' });
    await client.call('trashRun', { id });
    await bench.open('/settings');
    const button = page.getByRole('button', { name: 'Clean up: Trash' });
    await button.waitFor();
    expect(await bench.look('settings')).toEqual([]);
    await button.click();
    await page.getByText(/This frees .* in 1 item/).waitFor();
    await page.getByRole('button', { name: 'Free it' }).click();
    await expect
      .poll(async () => (await client.call('listRuns', {})).some((run) => run.id === id))
      .toBe(false);
    await page.getByRole('textbox', { name: 'Hub token' }).fill('hf_test');
    await page.getByRole('button', { name: 'Keep' }).click();
    await page.getByText('kept in the home').waitFor();
    expect(statSync(join(home, 'host', 'hub-token')).mode & 0o777).toBe(0o600);
    await page.getByRole('button', { name: 'Forget it' }).click();
    await page.getByRole('radio', { name: 'High contrast' }).check();
    expect(await page.evaluate(() => document.documentElement.dataset['theme'])).toBe('contrast');
    await page.reload();
    expect(await page.getByRole('radio', { name: 'High contrast' }).isChecked()).toBe(true);
    await page.getByRole('radio', { name: 'As the system has it' }).check();
    await page.getByText('There is none.').waitFor();
  }, 120_000);
});
