/** Chat in the window over the real host: panes on one prompt, editing, branches, search, the prompt, and the router lens. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRealWorkbench, tinyRun, type RealWorkbench } from './support/realWorkbench.ts';
import { needs } from './support/skip.ts';

const runnable = needs('browser') && needs('page') && needs('addon');

describe.runIf(runnable)('chat', () => {
  let bench: RealWorkbench;
  beforeAll(async () => {
    bench = await startRealWorkbench();
    await bench.train({ ...tinyRun, name: 'sparse' });
    await bench.train({ ...tinyRun, name: 'dense', method: 'lora' });
  }, 300_000);
  afterAll(() => bench?.close());
  const question = () => bench.page.getByRole('textbox', { name: 'Question', exact: true });
  const figures = () => bench.page.getByText(/context [\d,]+ of 256 tokens/);
  const threads = () => bench.client.call('listThreads', {});
  async function choose(pane: string, model: string): Promise<void> {
    const { page } = bench;
    await page
      .getByRole('region', { name: pane, exact: true })
      .getByRole('button', { name: new RegExp(`^${pane}: `) })
      .click();
    await page.getByRole('option', { name: new RegExp(`^${model}`) }).click();
  }

  test('up to four models answer one prompt side by side, in one thread', async () => {
    const { page } = bench;
    await bench.open('/chat');
    await choose('Model', 'sparse');
    await page.getByRole('button', { name: 'Compare' }).click();
    await choose('Model beside', 'tiny');
    await page.getByRole('button', { name: 'Compare' }).click();
    await page.getByRole('button', { name: 'Compare' }).click();
    expect(await page.getByRole('button', { name: 'Compare' }).count()).toBe(0);
    await choose('Model beside, 3', 'dense');
    await page.getByRole('button', { name: /^Sampling/ }).click();
    await page.getByLabel('Max tokens').fill('10');
    await page.getByLabel('System prompt').fill('Answer in few words.');
    await page.keyboard.press('Escape');
    await question().fill('What is 3 plus 4?');
    await page.keyboard.press('Enter');
    await expect.poll(() => figures().count()).toBe(4);
    const kept = await threads();
    expect(kept).toHaveLength(4);
    expect(new Set(kept.map(({ model }) => model)).size).toBe(3);
    expect(kept.filter(({ parent }) => parent === null)).toHaveLength(1);
    expect(await page.locator('.threads li').count()).toBe(1);
    expect(await bench.look('chat-four')).toEqual([]);
    await page.reload();
    await expect.poll(() => figures().count()).toBe(4);
    expect(await page.getByText('System prompt').count()).toBe(4);
  });

  test('a pane that is closed stays as a chat of its own', async () => {
    const { page } = bench;
    await page
      .getByRole('region', { name: 'Model beside, 4' })
      .getByRole('button', { name: /^Close/ })
      .click();
    await expect.poll(() => page.getByRole('region', { name: /^Model/ }).count()).toBe(3);
    await expect.poll(() => page.locator('.threads li').count()).toBe(2);
  });

  test('the prompt is shown as the model sees it, special tokens marked', async () => {
    const { page } = bench;
    await page.getByRole('button', { name: 'Prompt', exact: true }).click();
    const prompt = page.getByRole('dialog').getByLabel('Prompt', { exact: true });
    await expect
      .poll(() => prompt.textContent())
      .toContain('### Human:\nWhat is 3 plus 4?\n### Assistant:\n');
    expect(await prompt.textContent()).toContain('### System:\nAnswer in few words.');
    expect(await prompt.locator('.special').first().textContent()).toBe('<|bos|>');
    expect(await bench.look('chat-prompt')).toEqual([]);
    await page.keyboard.press('Escape');
  });

  test('an answer that was cut goes on in its place; again answers with the next seed', async () => {
    const { page } = bench;
    const pane = page.getByRole('region', { name: 'Model', exact: true });
    // The closed pane's chat is no pane's parent any more; which of the two answered last is chance.
    const kept = await threads();
    const top = kept.find(({ id }) => kept.some(({ parent }) => parent === id));
    const answer = async () => (await bench.client.call('readThread', { id: top!.id })).messages.at(-1)!;
    const before = await answer();
    expect(before.answer).toMatchObject({ stopReason: 'length', tokens: 10, contextSize: 256 });
    await pane.getByRole('button', { name: 'Continue' }).click();
    await expect.poll(async () => (await answer()).content.length).toBeGreaterThan(before.content.length);
    await expect.poll(async () => (await answer()).answer).not.toBeNull();
    const longer = await answer();
    expect(longer.id).toBe(before.id);
    expect(longer.content.startsWith(before.content)).toBe(true);
    await pane.getByRole('button', { name: 'Answer again' }).click();
    await expect.poll(async () => (await answer()).answer?.sampling.seed).toBe(1);
  });

  test('a question is asked in other words, here or in a branch, and the original stays', async () => {
    const { page } = bench;
    const pane = page.getByRole('region', { name: 'Model', exact: true });
    const before = page.url();
    await pane.getByText('What is 3 plus 4?').hover();
    await pane.getByRole('button', { name: 'Edit the question' }).click();
    const edit = page.getByRole('textbox', { name: 'The question in other words' });
    await edit.fill('Where does camel 5 live?');
    await page.getByRole('button', { name: 'Ask in a branch' }).click();
    await page.waitForURL((url) => url.href !== before);
    await expect.poll(() => figures().count()).toBe(1);
    await page.getByText('Where does camel 5 live?').first().waitFor();
    await question().fill('And then?');
    await page.keyboard.press('Enter');
    await expect.poll(() => figures().count()).toBe(2);
    await page.getByRole('button', { name: 'Branch from here' }).first().click();
    await page
      .getByText(/\(branch\)/)
      .first()
      .waitFor();
    await expect.poll(() => figures().count()).toBe(1);
    await page.goto(before);
    await page.getByText('What is 3 plus 4?').first().waitFor();
  });

  test('search finds what was said, by keyboard', async () => {
    const { page } = bench;
    await page.getByRole('region', { name: 'Model', exact: true }).getByRole('button').first().focus();
    await page.keyboard.press('/');
    await page.keyboard.type('CAMEL 5');
    await expect.poll(() => page.locator('.threads li').count()).toBe(2);
    await page.locator('.threads .excerpt').first().waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByText('Where does camel 5 live?').first().waitFor();
    await page.getByRole('searchbox', { name: 'Search chats' }).fill('no such words');
    await page.getByText('No chat holds that text.').waitFor();
    await page.getByRole('searchbox', { name: 'Search chats' }).fill('');
  });

  test('the router lens colours an answer by expert and tells weights by layer', async () => {
    const { page } = bench;
    await page.getByRole('button', { name: 'Show which experts each token went to' }).first().click();
    const tokens = page.getByRole('group', { name: /^Tokens by expert/ });
    await tokens.waitFor();
    expect(await tokens.locator('.token').count()).toBeGreaterThan(5);
    await tokens.focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    const rows = page.locator('.lens .detail li');
    expect(await rows.count()).toBe(2);
    expect(await rows.first().textContent()).toMatch(/layer 0.*#\d [\d.]+ %.*#\d [\d.]+ %/);
    await page.getByLabel('Colour by').selectOption('layer 1');
    await page.locator('.legend button').first().click();
    expect(await bench.look('chat-lens')).toEqual([]);
    // What the window shows is what the host says.
    const shown = await tokens.locator('.token').allTextContents();
    expect(shown.join('').length).toBeGreaterThan(10);
  });

  test('routing: which experts each source goes to, and where any text goes', async () => {
    const { page } = bench;
    await page.keyboard.press('Escape');
    await bench.open('/routing');
    await page.getByRole('button', { name: 'Route rows of both' }).click();
    const table = page.getByRole('table');
    await table.waitFor();
    expect(await table.getByRole('columnheader').allTextContents()).toEqual([
      'Expert',
      expect.stringMatching(/^animals .* tokens$/),
      expect.stringMatching(/^sums .* tokens$/),
    ]);
    const shares = async () =>
      (await table.locator('tbody .share').allTextContents()).map((share) => parseFloat(share));
    // Four experts, two of them for each token: a source's shares sum to 2.
    const sum = async () => (await shares()).reduce((total, share) => total + share, 0) / 2;
    expect(await shares()).toHaveLength(8);
    expect(Math.abs((await sum()) - 200)).toBeLessThan(1);
    await page.getByLabel('Share').selectOption('first choice');
    await expect.poll(async () => Math.abs((await sum()) - 100)).toBeLessThan(1);
    await page.getByLabel('Layer').selectOption('1');
    await page.getByText(/Mutual information .*[\d.]+ nats/).waitFor();
    await page.getByLabel('Text to route').fill('What is 3 plus 4?');
    await page.keyboard.press('Control+Enter');
    const tokens = page.getByRole('group', { name: /^Tokens by expert/ });
    await tokens.waitFor();
    expect((await tokens.locator('.token').allTextContents()).join('')).toBe('<|bos|>What is 3 plus 4?');
    expect(await bench.look('routing')).toEqual([]);
  });

  test('nothing was complained about in the console', () => {
    expect(bench.complaints).toEqual([]);
  });
});
