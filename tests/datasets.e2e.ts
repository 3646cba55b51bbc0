/** Datasets in a real browser over the real host: imported, looked at to the token, mixed, thrown away and restored. */
import { AxeBuilder } from '@axe-core/playwright';
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

const shots = fileURLToPath(new URL('../out/test/screenshots/', import.meta.url));
const runnable = needs('browser') && needs('page') && needs('addon');

const rowCount = 1200;
/** Rows of two kinds; every tenth repeats the words of the one before, every hundredth is too long for 64 tokens. */
function talk(i: number): { question: string; answer: string; topic: string } {
  const n = i % 10 === 9 ? i - 1 : i;
  return {
    topic: i % 3 === 0 ? 'camels' : 'sums',
    question: n % 100 === 50 ? `Tell me of ${n}. ${'Please, please. '.repeat(40)}` : `What of ${n}?`,
    answer: n % 100 === 25 ? 'On and on and on. '.repeat(40) : `It is ${n} — and an oasis.`,
  };
}

describe.runIf(runnable)('datasets over the real host', () => {
  const folder = runnable ? mkdtempSync(join(tmpdir(), 'datasets-')) : '';
  const complaints: string[] = [];
  let client: Client;
  let browser: Browser;
  let page: Page;
  let origin: string;

  const open = (path: string) => page.goto(`${origin}#${path}`);
  const heading = (name: string) => page.getByRole('heading', { level: 1, name, exact: true });
  const grid = () => page.getByRole('grid');
  const rowText = (index: number) => page.locator(`#row-${index}`).textContent();
  async function done(job: Job): Promise<Job> {
    let now = job;
    while (!isEnded(now.state)) {
      await sleep(50);
      now = await client.call('getJob', { id: job.id });
    }
    expect(now.error).toBeNull();
    return now;
  }
  const sourceNamed = async (name: string) =>
    (await client.call('listSources', {})).find((source) => source.name === name)!;

  beforeAll(async () => {
    mkdirSync(shots, { recursive: true });
    client = await connectOrStart({ home: join(folder, 'home') });
    writeTinyModel(join(folder, 'tiny'));
    await done(await client.call('addModel', { path: join(folder, 'tiny'), name: 'tiny' }));
    const rows = Array.from({ length: rowCount }, (_, i) => {
      const { question, answer, topic } = talk(i);
      return JSON.stringify({ type: topic, query: question, response: answer, original_question: `q${i}` });
    });
    rows.splice(4, 0, '{"query": "What of it?", "response": "  "}', 'this is no JSON');
    writeFileSync(join(folder, 'talks.jsonl'), `${rows.join('\n')}\n`);
    writeFileSync(
      join(folder, 'own.csv'),
      'frage,antwort\n"Wie hoch?","Drei Meter."\n"Wie weit?","Sehr weit."\n',
    );
    browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      reducedMotion: 'reduce',
    });
    page = await context.newPage();
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
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

  test('an import by keyboard alone: its preview names what would be set aside, its job ends in the library', async () => {
    await heading('Home').waitFor();
    await page.keyboard.press('g');
    await page.keyboard.press('d');
    await heading('Datasets').waitFor();
    await page.getByText('npx caravan import FILE').waitFor();
    await page.keyboard.press('i');
    const dialog = page.getByRole('dialog', { name: 'Import files' });
    await dialog.waitFor();
    await expect.poll(() => dialog.locator('textarea:focus').count()).toBe(1);
    await page.keyboard.type(join(folder, 'talks.jsonl'));
    await dialog.getByText('guessed the format query-response').waitFor();
    const sample = dialog.getByRole('region', { name: 'Sample rows' });
    await sample.getByText('What of 0?').waitFor();
    await sample.getByText('Not valid JSON').waitFor();
    await sample.getByText('Empty answer').waitFor();
    await page.screenshot({ path: `${shots}import.png` });
    // From the field with the paths through format and name to the button.
    for (let presses = 0; presses < 12; presses++) {
      if (
        (await dialog
          .getByRole('button', { name: 'Import', exact: true })
          .and(page.locator(':focus'))
          .count()) > 0
      )
        break;
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await page.getByRole('link', { name: 'talks', exact: true }).waitFor();
    expect(await sourceNamed('talks')).toMatchObject({
      rows: rowCount,
      rejected: 2,
      format: 'query-response',
    });
  });

  test('own columns are mapped with a live preview', async () => {
    await open('/datasets?import=1');
    const dialog = page.getByRole('dialog', { name: 'Import files' });
    await dialog.getByRole('textbox', { name: /Paths/ }).fill(join(folder, 'own.csv'));
    await dialog.getByText('No known format has these columns: frage, antwort').waitFor();
    const start = dialog.getByRole('button', { name: 'Import', exact: true });
    expect(await start.isDisabled()).toBe(true);
    await dialog.getByLabel('Format').selectOption('mapping');
    const column = (role: string) => dialog.getByRole('combobox', { name: role, exact: true });
    await column('Prompt').selectOption('antwort');
    await column('Answer').selectOption('frage');
    const first = dialog.locator('.sample li').first();
    await expect.poll(() => first.locator('.assistant dd').textContent()).toBe('Wie hoch?');
    await column('Prompt').selectOption('frage');
    await column('Answer').selectOption('antwort');
    await expect.poll(() => first.locator('.assistant dd').textContent()).toBe('Drei Meter.');
    await start.click();
    await page.getByRole('link', { name: 'own', exact: true }).waitFor();
    expect(await sourceNamed('own')).toMatchObject({
      rows: 2,
      mapping: { prompt: 'frage', answer: 'antwort' },
    });
  });

  test('a path that is not there, and a file dropped into a browser: said as it is', async () => {
    await open('/datasets?import=1');
    const dialog = page.getByRole('dialog', { name: 'Import files' });
    await dialog.getByRole('textbox', { name: /Paths/ }).fill('/nowhere/rows.jsonl');
    await dialog.getByText('There is no such file').waitFor();
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(['{}'], 'mine.jsonl'));
      const zone = document.querySelector('.zone')!;
      for (const type of ['dragenter', 'dragover', 'drop'])
        zone.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await dialog.getByText('A browser does not tell where mine.jsonl lies').waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
  });

  test('rows set aside: file, line, field and reason', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}?view=rejects`);
    await expect.poll(() => grid().getAttribute('aria-rowcount')).toBe('3');
    await expect.poll(() => rowText(0)).toContain('talks.jsonl5response');
    expect(await rowText(0)).toContain('Empty answer');
    expect(await rowText(1)).toContain('Not valid JSONtalks.jsonl6');
    await page.getByRole('searchbox').fill('json');
    await page.getByText('2 rows set aside').waitFor();
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    await page.getByRole('button', { name: /^Empty answer/ }).click();
    await page.getByText('1 rows set aside').waitFor();
  });

  test('rows by keyboard: to the last and back, open one, step on, close', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}`);
    await page.getByText('1,200 rows', { exact: true }).waitFor();
    await page.keyboard.press('t');
    await expect.poll(() => grid().evaluate((element) => element === document.activeElement)).toBe(true);
    const current = async () => (await grid().getAttribute('aria-activedescendant')) ?? '';
    await page.keyboard.press('End');
    await expect.poll(current).toBe(`row-${rowCount - 1}`);
    await expect.poll(() => rowText(rowCount - 1)).toContain('What of 1198?');
    await page.keyboard.press('PageUp');
    await page.keyboard.press('ArrowUp');
    const at = Number((await current()).slice(4));
    expect(at).toBeLessThan(rowCount - 10);
    await page.keyboard.press('Home');
    await expect.poll(current).toBe('row-0');
    await page.keyboard.press('ArrowDown');
    await expect.poll(() => rowText(1)).toContain('What of 1?');
    await page.keyboard.press('Enter');
    const panel = page.getByRole('complementary', { name: 'Row 1', exact: true });
    await panel.getByText('What of 1?').first().waitFor();
    expect(page.url()).toContain('row=1');
    await page.getByRole('button', { name: 'Row after' }).click();
    await page.getByRole('complementary', { name: 'Row 2', exact: true }).waitFor();
    // The address leads back to the row, in whatever order the table is.
    await page.reload();
    await page
      .getByRole('complementary', { name: 'Row 2', exact: true })
      .getByText('What of 2?')
      .first()
      .waitFor();
    await page.getByRole('complementary').getByRole('tab', { name: 'Messages' }).focus();
    await page.keyboard.press('Escape');
    await expect.poll(() => page.getByRole('complementary').count()).toBe(0);
    expect(await grid().evaluate((element) => element === document.activeElement)).toBe(true);
  });

  test('search, order and filters meet in the address', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}`);
    await page.getByText('1,200 rows', { exact: true }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('"on and on"');
    await page.getByText('12 rows', { exact: true }).waitFor();
    await expect.poll(() => page.locator('#row-0 mark').first().textContent()).toMatch(/on and on/i);
    await page.getByRole('button', { name: 'Row', exact: true }).click();
    await page.getByRole('button', { name: 'Row', exact: true }).click();
    await expect.poll(() => rowText(0)).toContain('What of 1125?');
    await page.reload();
    await page.getByText('12 rows', { exact: true }).waitFor();
    await expect.poll(() => rowText(0)).toContain('What of 1125?');
    await page.getByRole('searchbox').fill('');
    await page.getByText('1,200 rows', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    await page.getByRole('button', { name: 'Duplicates', exact: true }).click();
    await page.getByText('120 rows', { exact: true }).waitFor();
    await page.getByRole('button', { name: /Remove the filter/ }).click();
    await page.getByText('1,200 rows', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    await page.getByRole('button', { name: /^camels/ }).click();
    await page.getByText('400 rows', { exact: true }).waitFor();
  });

  test('the truth of a row: its line, its prompt, and every token with its fate', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}?row=25`);
    await page.getByLabel('Model whose tokenizer is used').selectOption('tiny');
    await page.getByLabel('Tokens of a sequence').fill('64');
    await page.keyboard.press('Tab');
    const panel = page.getByRole('complementary', { name: 'Row 25', exact: true });
    await panel.getByRole('tab', { name: 'Raw' }).click();
    await panel.getByText('As it stands in').waitFor();
    expect(await panel.locator('pre').textContent()).toContain('"query": "What of 25?"');
    await panel.getByRole('tab', { name: 'Rendered' }).click();
    await expect
      .poll(() => panel.locator('.text').textContent())
      .toContain('### Human:\nWhat of 25?\n### Assistant:\n');
    const prompt = await panel.locator('.text').textContent();
    const rendered = await client.call('renderRow', {
      of: { kind: 'source', id },
      key: 25,
      yardstick: { model: 'tiny', template: 'camelidae', seqLen: 64 },
    });
    expect(prompt).toBe(rendered.pieces.map(({ text }) => text).join(''));
    await panel.getByRole('tab', { name: 'Tokens' }).click();
    for (const state of ['trained', 'masked', 'cut'] as const) {
      const shown = rendered.tokens.filter((token) => token.state === state);
      expect(shown.length, state).toBeGreaterThan(0);
      await expect.poll(() => panel.locator(`.tokens .token.${state}`).count()).toBe(shown.length);
    }
    await panel.getByText('64 tokens end here').waitFor();
    await page.screenshot({ path: `${shots}row-tokens.png` });
    await open(`/datasets/sources/${id}?row=50`);
    await page.getByText('Nothing of this row would be trained').waitFor();
  });

  test('statistics: counted by tokens, each figure leads to its rows', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}?view=statistics`);
    await page.getByRole('button', { name: 'Count tokens with tiny' }).click();
    const all = page.getByRole('row', { name: /^All rows/ });
    await expect.poll(() => all.textContent()).toMatch(/1212/);
    const statistics = await client.call('describeLook', {
      of: { kind: 'source', id },
      yardstick: { model: 'tiny', template: 'camelidae', seqLen: 64 },
    });
    expect(statistics.all.fates).toEqual({ whole: rowCount - 24, cut: 12, untrained: 12 });
    await page.getByRole('button', { name: 'Trained tokens' }).click();
    await page.screenshot({ path: `${shots}statistics.png` });
    await page
      .getByRole('button', { name: /^All rows, .* rows: show them/ })
      .and(page.locator(':enabled'))
      .last()
      .click();
    await expect.poll(() => page.url()).toContain('targetTokens');
    await page.goBack();
    await all.getByRole('link', { name: '12', exact: true }).last().click();
    await page.getByText('12 rows', { exact: true }).waitFor();
    await expect.poll(() => rowText(0)).toContain('nothing trained');
  });

  test('a mix is put together, built, and accounts for every row', async () => {
    const { id } = await sourceNamed('talks');
    await open(`/datasets/sources/${id}`);
    await page.getByRole('button', { name: 'Mix', exact: true }).click();
    await heading('New mix').waitFor();
    await page.getByLabel('How much of talks').waitFor();
    await page.getByRole('textbox', { name: 'Name', exact: true }).fill('blend');
    await page.getByLabel('Model whose tokenizer counts').selectOption('tiny');
    await page.getByLabel('Tokens of a row at most').fill('64');
    await page.keyboard.press('Tab');
    await page.getByLabel('How much of talks').selectOption('count');
    await page.getByLabel('Rows of talks').fill('900');
    await page.keyboard.press('Tab');
    await page.getByLabel('Add a step to: Cleaning of every source').selectOption('length');
    await page.getByLabel('At most', { exact: true }).fill('400');
    await page.keyboard.press('Tab');
    await page.getByLabel('Held out of each source').fill('20');
    await expect.poll(() => page.locator('.command').textContent()).toContain('count: 900');
    await expect.poll(() => page.locator('.command').textContent()).toContain('max: 400');
    expect(await page.locator('.command').textContent()).toContain('seqLen: 64');
    expect(await page.locator('.command').textContent()).toContain('step: length');
    await page.screenshot({ path: `${shots}mix.png` });
    await page.keyboard.press('Control+Enter');
    await heading('blend').waitFor();
    await page.getByRole('heading', { name: 'Every row is accounted for' }).waitFor();
    const [mix] = await client.call('listMixes', {});
    expect(mix).toMatchObject({ name: 'blend', rows: 900, validationRows: 20 });
    const left = await page.locator('.reasons').first().getByRole('listitem').allTextContents();
    const figure = (text: string | undefined) => Number(text!.replace(/\D/g, ''));
    const out = left.slice(1, -1).reduce((sum, text) => sum + figure(text.split('−')[1]), 0);
    expect(figure(left[0]) - out).toBe(figure(left.at(-1)));
    expect(figure(left.at(-1))).toBe(920);
  });

  test('a preview counts what each step leaves out, tokens, and rows that repeat a benchmark', async () => {
    const leaked =
      'How many amphorae of olive oil did the forty camels carry across the desert to the harbour?';
    writeFileSync(
      join(folder, 'leaky.jsonl'),
      [leaked, 'Who leads?', 'Who follows?', 'A question in so many words?']
        .map((question, i) => JSON.stringify({ question, answer: `Answer ${i}, in a few words.` }))
        .join('\n'),
    );
    writeFileSync(
      join(folder, 'gsm8k-test.jsonl'),
      `${JSON.stringify({ question: leaked, answer: 'Forty times two is eighty.\n#### 80' })}\n`,
    );
    await done(await client.call('importSource', { files: [join(folder, 'leaky.jsonl')], name: 'leaky' }));
    const [mix] = await client.call('listMixes', {});
    await open(`/datasets/mix?from=${mix!.id}`);
    await page.getByText('Begins with the recipe of blend').waitFor();
    await page.getByLabel('Add a source of the library').selectOption('leaky');
    await page.getByLabel('Held out of each source').fill('0.1');
    await page.keyboard.press('Tab');
    await page.getByLabel('Path of a benchmark').fill(join(folder, 'gsm8k-test.jsonl'));
    await page.keyboard.press('Enter');
    await page.getByText('gsm8k · 1 items').waitFor();
    const outlook = page.getByRole('complementary', { name: 'What it would hold' });
    await outlook.getByRole('button', { name: 'Preview' }).click();
    await outlook.getByRole('columnheader', { name: 'Trained' }).waitFor();
    expect(await outlook.getByRole('row', { name: /^leaky/ }).textContent()).toMatch(/^leaky3/);
    const { sources } = mix!.recipe;
    expect(sources).toHaveLength(1);
    // The step says what it leaves out where it stands, with examples.
    await page.getByRole('button', { name: '− 12' }).click();
    await page
      .getByRole('list', { name: 'Rows that Length leaves out' })
      .getByText('talks.jsonl:')
      .first()
      .waitFor();
    await outlook.getByRole('button', { name: 'Show the 1 rows that repeat gsm8k' }).click();
    await expect.poll(() => outlook.locator('mark').allTextContents()).toHaveLength(2);
    expect((await outlook.locator('mark').first().textContent())!.toLowerCase()).toContain(
      'amphorae of olive oil',
    );
    await page.screenshot({ path: `${shots}mix-preview.png` });
    await page.getByLabel('Seed').fill('5');
    await page.keyboard.press('Tab');
    await outlook.getByText('Counted for an earlier state of the recipe.').waitFor();
    await page.getByRole('button', { name: 'Start anew' }).click();
  });

  test('a row of a mix leads to the row of its source', async () => {
    const [mix] = await client.call('listMixes', {});
    await open(`/datasets/mixes/${mix!.id}?row=7`);
    const panel = page.getByRole('complementary', { name: 'Row 7', exact: true });
    await panel.getByRole('tab', { name: 'Messages' }).click();
    const words = (await panel.locator('.messages .user dd').textContent())!;
    await panel.getByRole('link', { name: /^talks, row/ }).click();
    await heading('talks').waitFor();
    await expect
      .poll(() => page.getByRole('complementary').locator('.messages .user dd').textContent())
      .toBe(words);
  });

  test('recipe.yaml: out of the form and into it again; a wrong one is named with its line', async () => {
    const [mix] = await client.call('listMixes', {});
    await open(`/datasets/mix?from=${mix!.id}`);
    await page.getByText('Begins with the recipe of blend').waitFor();
    const command = await page.locator('.command').textContent();
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Export recipe.yaml' }).click();
    const file = join(folder, 'recipe.yaml');
    await (await download).saveAs(file);
    await page.getByRole('button', { name: 'Start anew' }).click();
    await page.getByText('the mix has no name yet').waitFor();
    await page.getByLabel('recipe.yaml to import').setInputFiles(file);
    await expect.poll(() => page.locator('.command').textContent()).toBe(command);
    const wrong = join(folder, 'wrong.yaml');
    writeFileSync(wrong, 'name: x\nsources:\n  - name: a\n    source: talks\nsedd: 3\n');
    await page.getByLabel('recipe.yaml to import').setInputFiles(wrong);
    await page.getByText("There is no field 'sedd'").waitFor();
    await page.getByText('wrong.yaml:5:7 · sedd').waitFor();
    await expect.poll(() => page.locator('.command').textContent()).toBe(command);
  });

  test('into the trash and back; deleted only when asked twice', async () => {
    await open('/datasets');
    await page.getByRole('button', { name: 'Move own to the trash' }).click();
    await page.getByRole('button', { name: 'Restore' }).click();
    await page.getByRole('link', { name: 'own', exact: true }).waitFor();
    await page.getByRole('button', { name: 'Move own to the trash' }).click();
    await page.getByRole('link', { name: /^Trash/ }).click();
    await page.getByRole('button', { name: 'Delete… own' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('button', { name: 'Delete… own' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('Nothing lies in the trash.').waitFor();
    expect(await client.call('listTrash', {})).toEqual({ sources: [], mixes: [] });
    expect(await sourceNamed('own')).toBeUndefined();
  });

  test.each(['light', 'dark'] as const)('nothing for axe to find in the %s theme', async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    const { id } = await sourceNamed('talks');
    const [mix] = await client.call('listMixes', {});
    const screens: [string, string][] = [
      ['/datasets', 'Datasets'],
      ['/datasets?shelf=trash', 'Datasets'],
      ['/datasets?import=1', 'Datasets'],
      [`/datasets/sources/${id}?row=25`, 'talks'],
      [`/datasets/sources/${id}?view=rejects`, 'talks'],
      [`/datasets/sources/${id}?view=statistics`, 'talks'],
      [`/datasets/sources/${id}?view=about`, 'talks'],
      [`/datasets/mixes/${mix!.id}?view=about`, 'blend'],
      [`/datasets/mix?from=${mix!.id}`, 'New mix'],
    ];
    for (const [path, name] of screens) {
      await open(path);
      await page.locator('h1', { hasText: name }).waitFor();
      await page.waitForLoadState('networkidle');
      await sleep(250);
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(
        violations.map(
          ({ id: rule, nodes }) => `${path}: ${rule}: ${nodes.map(({ html }) => html).join(' | ')}`,
        ),
      ).toEqual([]);
    }
  });

  test('nothing was complained about in the console', () => {
    expect(complaints).toEqual([]);
  });
});
