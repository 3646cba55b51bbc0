/** A run put together in the window: presets, planner, refusal, files, and the live run it becomes. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from './support/skip.ts';
import { startRealWorkbench, type RealWorkbench } from './support/realWorkbench.ts';

const runnable = needs('browser') && needs('page') && needs('addon');

describe.runIf(runnable)('training from the window', () => {
  let bench: RealWorkbench;
  beforeAll(async () => {
    bench = await startRealWorkbench();
  }, 300_000);
  afterAll(() => bench?.close());
  const row = (key: string) => bench.page.locator(`[data-field="${key}"]`);
  const entry = (key: string) => row(key).locator('input, select').first();
  const planner = () => bench.page.getByRole('complementary', { name: 'Plan' });
  const start = () => planner().getByRole('button', { name: /^Start/ });
  const command = () => planner().getByLabel('Command', { exact: true });

  test('nothing starts before model and mix are chosen; a mix brings its model and length', async () => {
    const { page } = bench;
    await bench.open('/train');
    await planner().getByText('2 fields to fill in').waitFor();
    expect(await start().isDisabled()).toBe(true);
    await page.getByLabel('Preset').selectOption({ label: 'Demo' });
    await entry('mix').selectOption('both');
    await page.getByText('model tiny and length 128 taken from the mix').first().waitFor();
    await expect.poll(() => start().isEnabled()).toBe(true);
    expect(await entry('seqLen').inputValue()).toBe('128');
    expect(await command().textContent()).toContain('model: tiny\nmix: both\n');
  });

  test('the plan moves with the form, and what differs from the preset is marked', async () => {
    const { page } = bench;
    const memory = () => planner().locator('.lead dd').first().textContent();
    const trainable = () => planner().locator('.lead > div').nth(2).locator('dd').first().textContent();
    const before = { memory: await memory(), trainable: await trainable() };
    await entry('adapterDim').fill('256');
    await expect.poll(trainable).not.toBe(before.trainable);
    await expect.poll(memory).not.toBe(before.memory);
    expect(await row('adapterDim').getAttribute('class')).toContain('changed');
    expect(await command().textContent()).toContain('adapterDim: 256');
    await page.getByText('2 settings differ').waitFor();
    await row('adapterDim')
      .getByRole('button', { name: /back to the preset/ })
      .click();
    await expect.poll(trainable).toBe(before.trainable);
    expect(await entry('adapterDim').inputValue()).toBe('64');
    // The plan in the window is the one that the command line would print.
    const plan = await bench.client.call('planRun', {
      config: { ...presetDemo, model: 'tiny', mix: 'both', seqLen: 128 },
      probe: false,
    });
    expect(await planner().locator('.lead > div').nth(1).locator('dd').first().textContent()).toBe(
      plan.steps.toLocaleString('en'),
    );
    await planner().getByRole('button', { name: 'Measure a step' }).click();
    await planner()
      .getByText(/tokens\/s/)
      .waitFor();
  });

  test('what is out of range is said at the field, and what does not fit is refused with the mend', async () => {
    await entry('batchSize').fill('-3');
    await row('batchSize').getByText('must be a whole number, at least 1').waitFor();
    expect(await start().isDisabled()).toBe(true);
    // A micro-batch has no more bins than a step has conversations.
    await entry('batchSize').fill('4000000');
    await entry('microBatchSize').fill('4000000');
    await planner()
      .getByText(/It does not fit: .* are needed/)
      .waitFor();
    await planner()
      .getByText(/Lower microBatchSize \(4000000\)/)
      .waitFor();
    expect(await start().isDisabled()).toBe(true);
    await entry('batchSize').fill('8');
    await entry('microBatchSize').fill('2');
    // What only the host can know is said at its field too.
    await entry('seqLen').fill('64');
    await row('seqLen')
      .getByText(/up to 128 tokens long, but seqLen is 64/)
      .waitFor();
    await entry('seqLen').fill('128');
    await expect.poll(() => start().isEnabled()).toBe(true);
  });

  test('run.yaml goes out and comes in, and a wrong one says where', async () => {
    const { page, folder } = bench;
    const waiting = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Export', exact: true }).click();
    const file = join(folder, 'exported.yaml');
    await (await waiting).saveAs(file);
    const text = readFileSync(file, 'utf8');
    expect(text).toContain('model: tiny');
    writeFileSync(join(folder, 'wrong.yaml'), 'model: tiny\nloraRnk: 3\n');
    await page.getByLabel('run.yaml to import').setInputFiles(join(folder, 'wrong.yaml'));
    await page.getByText("There is no field 'loraRnk'").waitFor();
    writeFileSync(
      join(folder, 'run.yaml'),
      text.replace(/loraRank: \d+/, 'loraRank: 4').replace(/epochs: 3\n/, 'maxSteps: 30\n'),
    );
    await page.getByLabel('run.yaml to import').setInputFiles(join(folder, 'run.yaml'));
    await expect.poll(() => entry('loraRank').inputValue()).toBe('4');
    expect(await page.getByText("There is no field 'loraRnk'").count()).toBe(0);
    expect(await entry('maxSteps').inputValue()).toBe('30');
    // A reload keeps what was put together.
    await page.reload();
    await expect.poll(() => entry('loraRank').inputValue()).toBe('4');
    await expect.poll(() => start().isEnabled()).toBe(true);
    expect(await bench.look('train')).toEqual([]);
  });

  test('by keyboard alone: a name, fewer steps, Start, and the run is there', async () => {
    const { page } = bench;
    await page.locator('body').press('g');
    await page.keyboard.press('r');
    await page.getByRole('heading', { level: 1, name: 'Experiments' }).waitFor();
    await page.keyboard.press('g');
    await page.keyboard.press('t');
    await page.getByRole('heading', { level: 1, name: 'Train' }).waitFor();
    await entry('name').focus();
    await page.keyboard.type('from-the-window');
    for (let i = 0; i < 60 && !(await isFocused('loraRank')); i++) await page.keyboard.press('Tab');
    await page.keyboard.press('Control+a');
    await page.keyboard.type('8');
    await expect.poll(() => start().isEnabled()).toBe(true);
    await page.keyboard.press('Control+Enter');
    await page.getByRole('heading', { level: 1, name: 'from-the-window' }).waitFor();
    await expect
      .poll(async () => (await bench.client.call('findRun', { ref: 'from-the-window' })).state, {
        timeout: 60_000,
      })
      .toBe('completed');
    const { config } = await bench.client.call('findRun', { ref: 'from-the-window' });
    expect(config).toMatchObject({
      loraRank: 8,
      maxSteps: 30,
      adapterDim: 64,
      schedule: 'cosine',
      mix: 'both',
    });
  });
  async function isFocused(key: string): Promise<boolean> {
    return entry(key).evaluate((element) => element === document.activeElement);
  }

  test("a run's settings are the start of the next one", async () => {
    const { page } = bench;
    await page.getByRole('button', { name: 'More for this run' }).click();
    await page.getByRole('menuitem', { name: 'New run from these settings' }).click();
    await page.getByRole('heading', { level: 1, name: 'Train' }).waitFor();
    expect(await entry('loraRank').inputValue()).toBe('8');
    expect(await entry('name').inputValue()).toBe('');
  });

  test('nothing was complained about in the console', () => {
    expect(bench.complaints).toEqual([]);
  });
});

const presetDemo = {
  baseDtype: 'bf16',
  computeDtype: 'f32',
  loraRank: 16,
  loraDropout: 0,
  adapterDim: 64,
  adapterDropout: 0,
  batchSize: 8,
  microBatchSize: 4,
  epochs: 3,
  lr: 0.002,
  schedule: 'cosine',
} as const;
