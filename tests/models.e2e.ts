/** Models and exports in a real browser over the real host: added, looked into, planned with, carried out, thrown away. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../core/shared/run/run.ts';
import { startRealWorkbench, tinyRun, type RealWorkbench } from './support/realWorkbench.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const runnable = needs('browser') && needs('page') && needs('addon');

describe.runIf(runnable)('models over the real host', () => {
  let bench: RealWorkbench;
  let run: Run;
  const heading = (name: string) => bench.page.getByRole('heading', { level: 1, name, exact: true });
  const modelNamed = async (name: string) =>
    (await bench.client.call('listModels', {})).find((model) => model.name === name)!;

  beforeAll(async () => {
    bench = await startRealWorkbench();
    run = await bench.train({ ...tinyRun, name: 'crafted' });
    writeTinyModel(join(bench.folder, 'second'), 2);
  }, 240_000);
  afterAll(() => bench?.close());

  test('a model is added by keyboard alone: looked at first, then a job, then its card', async () => {
    const { page, folder } = bench;
    await page.keyboard.press('g');
    await page.keyboard.press('m');
    await heading('Models').waitFor();
    await page.getByRole('link', { name: 'tiny', exact: true }).waitFor();
    await page.keyboard.press('i');
    const dialog = page.getByRole('dialog', { name: 'Add a model' });
    await dialog.waitFor();
    await expect
      .poll(() =>
        dialog.getByLabel(/^Path of the model/).evaluate((field) => field === document.activeElement),
      )
      .toBe(true);
    await page.keyboard.type(join(folder, 'second', 'config.json'));
    const there = dialog.getByRole('region', { name: 'What is there' });
    await there.getByText('LlamaForCausalLM').waitFor();
    await there.getByText('model.safetensors').waitFor();
    for (let presses = 0; presses < 10; presses++) {
      if (
        (await dialog.getByRole('button', { name: 'Add', exact: true }).and(page.locator(':focus')).count()) >
        0
      )
        break;
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await page.getByRole('link', { name: 'second', exact: true }).waitFor();
    const { id, dir, checks } = await modelNamed('second');
    expect(dir).toBe(join(folder, 'second'));
    expect(checks?.every(({ passed }) => passed === true)).toBe(true);
    await page.keyboard.press('Control+p');
    await page.keyboard.type('second');
    await page.keyboard.press('Enter');
    await heading('second').waitFor();
    expect(page.url()).toContain(`/models/${id}`);
  });

  test('what cannot be used is refused by name, with the mend', async () => {
    const { page, folder } = bench;
    const other = join(folder, 'gpt2');
    mkdirSync(other);
    writeFileSync(
      join(other, 'config.json'),
      JSON.stringify({ architectures: ['GPT2LMHeadModel'], model_type: 'gpt2' }),
    );
    writeFileSync(join(other, 'model.safetensors'), '');
    await bench.open('/models?add=1');
    const dialog = page.getByRole('dialog', { name: 'Add a model' });
    const path = dialog.getByLabel(/^Path of the model/);
    await path.fill(other);
    await dialog
      .getByText(/GPT2LMHeadModel|gpt2/)
      .first()
      .waitFor();
    expect(await dialog.getByRole('button', { name: 'Add', exact: true }).isDisabled()).toBe(true);
    await path.fill('/no/such/model');
    await dialog.getByText('There is no such folder or file').waitFor();
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(['x'], 'mine.gguf'));
      const zone = document.querySelector('.zone')!;
      for (const type of ['dragenter', 'dragover', 'drop'])
        zone.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await dialog.getByText('A browser does not tell where mine.gguf lies').waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
  });

  test('a copy lies in the home; trash and restore; deleting it for good takes its files', async () => {
    const { page, folder, home } = bench;
    await bench.open('/models?add=1');
    const dialog = page.getByRole('dialog', { name: 'Add a model' });
    await dialog.getByLabel(/^Path of the model/).fill(join(folder, 'second'));
    await dialog.getByLabel('Name in the library').fill('kept');
    await dialog.getByLabel(/^Copied into the home/).check();
    await dialog.getByText('In the library already as').waitFor();
    await dialog.getByRole('button', { name: 'Copy and add' }).click();
    await page.getByRole('link', { name: 'kept', exact: true }).waitFor();
    const { id, dir } = await modelNamed('kept');
    expect(dir).toBe(join(home, 'models', id));
    expect(readdirSync(dir).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);

    await page.getByRole('button', { name: 'Move kept to the trash' }).click();
    await page.getByRole('link', { name: 'kept', exact: true }).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Restore', exact: true }).click();
    await page.getByRole('link', { name: 'kept', exact: true }).waitFor();

    await page.getByRole('button', { name: 'Move kept to the trash' }).click();
    await bench.open('/models?view=trash');
    await page.getByRole('button', { name: 'Delete… kept' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await page.getByText('No model lies in the trash.').waitFor();
    await expect.poll(() => existsSync(dir)).toBe(false);
    expect(existsSync(join(folder, 'second', 'model.safetensors'))).toBe(true);
  });

  test('the library is searched and sorted', async () => {
    const { page } = bench;
    await bench.open('/models');
    await page.getByRole('searchbox', { name: 'Search the library' }).fill('sec');
    await page.getByText('1 of 2').waitFor();
    expect(await page.getByRole('link', { name: 'tiny', exact: true }).count()).toBe(0);
    await page.getByRole('searchbox').fill('nothing at all');
    await page.getByRole('button', { name: 'Show all' }).click();
    const names = () => page.locator('tbody th a').allTextContents();
    expect(await names()).toEqual(['second', 'tiny']);
    await page.getByRole('button', { name: 'Name', exact: true }).click();
    expect(await names()).toEqual(['tiny', 'second']);
  });

  test('the card: figures, parameters by group, checks, and step 0 of its runs', async () => {
    const { page } = bench;
    const { id, parameters } = await modelNamed('tiny');
    await bench.open(`/models/${id}`);
    await heading('tiny').waitFor();
    const groups = page.getByRole('table', { name: 'Parameters by group' });
    await groups.getByRole('row', { name: /Embedding/ }).waitFor();
    const embedding = await groups.getByRole('row', { name: /^Embedding/ }).textContent();
    expect(embedding).toContain(`${((100 * parameters.embedding) / parameters.total).toFixed(1)} %`);
    await page.getByText('come back to the letter').waitFor();
    await page.getByText('at which generation stops').waitFor();
    await page.getByText('largest logit difference 0 in 1 run').waitFor();
  });

  test('the tokenizer tried out: ids, bytes, and special tokens that stay text', async () => {
    const { page, client } = bench;
    const { id } = await modelNamed('tiny');
    await bench.open(`/models/${id}?view=tokenizer`);
    const text = 'A camel — 🐪 <|eos|>';
    await page.getByLabel('Text to tokenise').fill(text);
    const { count } = await client.call('spellText', { model: 'tiny', text });
    await page.locator('.figures', { hasText: `${count} tokens` }).waitFor();
    await page.getByText('<|eos|> stays text here').waitFor();
    const rows = page.getByRole('group', { name: 'Tokens, one a row', exact: true });
    const bytes = (await rows.locator('tbody td:last-child').allTextContents()).join(' ');
    expect(bytes).toBe(Buffer.from(text).toString('hex').match(/../g)!.join(' '));
    const specials = page.getByRole('group', { name: 'Special tokens, one a row' });
    await specials.getByRole('row', { name: /<\|eos\|> ends answers, stops generation/ }).waitFor();
  });

  test('the template: what is learned, where generation stops, and a template that is not there', async () => {
    const { page } = bench;
    const { id } = await modelNamed('tiny');
    await bench.open(`/models/${id}?view=template`);
    const rendered = page.getByLabel('Rendered conversation');
    await rendered.waitFor();
    expect(await rendered.textContent()).toContain(
      '### Human:\nHow far is the next oasis?\n### Assistant:\n',
    );
    await page.getByLabel('Assistant').first().fill('Just behind the dune.');
    await expect
      .poll(async () => (await rendered.locator('.target').allTextContents()).join(''))
      .toBe('Just behind the dune.<|eos|>Four, if you rest at noon.<|eos|>');
    await page.getByText('Training teaches answers to end with <|eos|>').waitFor();
  });

  test('the plan asked backwards: less memory, a smaller largest; taken over into Train', async () => {
    const { page } = bench;
    const { id } = await modelNamed('tiny');
    await bench.open(`/models/${id}?view=plan`);
    const row = (name: string) => page.getByRole('row', { name: new RegExp(`^${name}`) });
    const largest = async (name: string) =>
      Number(((await row(name).locator('b').textContent()) ?? '').replaceAll(',', ''));
    await row('Batch on the device').locator('b').waitFor();
    expect(await largest('Batch on the device')).toBe(128);
    const first = await largest('Expert width');
    const memory = await page.getByRole('columnheader', { name: /^Of \d/ }).textContent();
    await page.getByLabel('Memory, GiB').fill('0.2');
    await expect
      .poll(() => page.getByRole('columnheader', { name: /^Of \d/ }).textContent())
      .not.toBe(memory);
    await expect.poll(() => largest('Expert width')).toBeLessThan(first);
    const taken = await largest('Expert width');
    await page.getByRole('button', { name: 'Take the largest: Expert width' }).click();
    await expect.poll(() => page.getByLabel('Expert width now').inputValue()).toBe(String(taken));
    await page.getByText('How good plans of this model have been').waitFor();
    await page
      .getByRole('row', { name: /^crafted/ })
      .getByText('%')
      .first()
      .waitFor();
    await page.getByRole('button', { name: 'Open in Train' }).click();
    await heading('Train').waitFor();
    await page.getByLabel('Command').getByText(`adapterDim: ${taken}`).waitFor();
  });

  test('a run is exported by its header: refusals with reasons, then the report, tensor by tensor', async () => {
    const { page, home, client } = bench;
    await bench.open(`/runs/${run.id}`);
    await page.getByRole('button', { name: 'Export…' }).click();
    await heading('Export').waitFor();
    const gguf = page.locator('.format', { hasText: 'GGUF' });
    await gguf.locator('.why').waitFor();
    expect(await gguf.getByRole('radio').isDisabled()).toBe(true);
    expect(await gguf.locator('.why').textContent()).toMatch(/experts.*Use /s);
    await page.getByRole('radio', { name: /^Camelidae/ }).check();
    await page.getByRole('radio', { name: 'f32, exact' }).check();
    await page.getByLabel('Command').getByText('--format camelidae').waitFor();
    const place = join(home, 'exports', 'crafted-camelidae-f32');
    await expect.poll(() => page.getByLabel('Folder of the export').inputValue()).toBe(place);
    expect(await bench.look('export-new')).toEqual([]);
    await page
      .getByRole('button', { name: /^Export/ })
      .last()
      .click();
    await heading('crafted as Camelidae').waitFor();
    const [made] = await client.call('listExports', {});
    expect(page.url()).toContain(`/exports/${made!.id}`);
    expect(made!.dir).toBe(place);
    await page.getByRole('heading', { name: 'Equal to what was trained' }).waitFor();
    const tensors = page.getByRole('group', { name: 'Tensors, one a row' });
    const whole = await client.call('getExport', { id: made!.id });
    expect(whole.parity.tensors.each).toHaveLength(made!.parity.tensors.tensors);
    await page.getByLabel('Search tensors').fill('layers.1.block_sparse');
    await expect
      .poll(async () =>
        (await tensors.locator('tbody code').allTextContents()).every((name) => name.includes('layers.1')),
      )
      .toBe(true);
    await page.getByRole('link', { name: 'crafted', exact: true }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: 'Equal to what was trained' }).waitFor();
    expect(await bench.look('export-report')).toEqual([]);
  });

  test('a place that is taken is said before anything starts', async () => {
    const { page, home } = bench;
    await bench.open(`/exports/new?run=${run.id}`);
    await page.getByLabel('Folder of the export').fill(join(home, 'exports', 'crafted-camelidae-f32'));
    await page.getByText('There is something at this place already').waitFor();
    expect(await page.locator('.start').isDisabled()).toBe(true);
  });

  test('exports are listed, with the model that they came from', async () => {
    const { page } = bench;
    await bench.open('/models?view=exports');
    await page.getByRole('link', { name: 'crafted as Camelidae' }).waitFor();
    const { id } = await modelNamed('tiny');
    await bench.open(`/models/${id}?view=uses`);
    await page.getByRole('link', { name: 'crafted', exact: true }).waitFor();
    await page.getByRole('link', { name: 'crafted as Camelidae' }).waitFor();
  });

  test('every screen passes axe in both themes, and the console stays silent', async () => {
    const { page } = bench;
    const { id } = await modelNamed('tiny');
    const found: string[] = [];
    for (const [name, path, ready] of [
      ['models', '/models', 'tiny'],
      ['model-exports', '/models?view=exports', 'crafted as Camelidae'],
      ['model-devices', '/models?view=devices', 'What was looked at'],
      ['model-card', `/models/${id}`, 'Files and identity'],
      ['model-tokenizer', `/models/${id}?view=tokenizer`, 'Special tokens'],
      ['model-template', `/models/${id}?view=template`, 'Generation stops at'],
      ['model-plan', `/models/${id}?view=plan`, 'Open in Train'],
      ['model-uses', `/models/${id}?view=uses`, 'crafted as Camelidae'],
    ] as const) {
      await bench.open(path);
      await page.locator('main').getByText(ready).first().waitFor();
      await page.waitForTimeout(600);
      found.push(...(await bench.look(name)));
    }
    await bench.open('/models?add=1');
    await page.getByLabel(/^Path of the model/).fill(join(bench.folder, 'second'));
    await page.getByText('LlamaForCausalLM').waitFor();
    found.push(...(await bench.look('model-add')));
    expect(found).toEqual([]);
    expect(bench.complaints).toEqual([]);
  });
});
