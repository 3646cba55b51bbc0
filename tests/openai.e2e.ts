/** OpenAI's API beside the workbench, with a real model: opened in the window, spoken to as programs do. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRealWorkbench, type RealWorkbench } from './support/realWorkbench.ts';
import { makeCaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

const runnable = needs('browser') && needs('page') && needs('addon');

describe.runIf(runnable)("OpenAI's API", () => {
  let bench: RealWorkbench;
  let url: string;
  let key: string;

  beforeAll(async () => {
    bench = await startRealWorkbench();
  });
  afterAll(() => bench?.close());

  const post = (path: string, body: object) =>
    fetch(`${url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });

  test('is off until the switch in Chat opens it; the key is shown once', async () => {
    const { page, client } = bench;
    expect(await client.call('openAiStatus', {})).toMatchObject({ enabled: false, hasKey: false });
    await bench.open('/chat');
    await page.getByRole('button', { name: 'API', exact: true }).click();
    const dialog = page.getByRole('dialog', { name: 'For other programs' });
    await dialog.getByRole('switch', { name: 'Closed' }).press('Space');
    await dialog.getByText('Copy it now').waitFor();
    const codes = await dialog.locator('code').allTextContents();
    [url, key] = [codes[0]!, codes[1]!];
    expect(url).toBe(`${bench.origin.replace(/\/$/, '')}/v1`);
    expect(key).toMatch(/^sk-caravan-/);
    expect(codes[2]).toContain(`curl ${url}/chat/completions -H "Authorization: Bearer ${key}"`);
    expect(await bench.look('openai')).toEqual([]);
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'API', exact: true }).click();
    await dialog.getByText('Shown once').waitFor();
    expect(await dialog.textContent()).not.toContain(key);
    await page.keyboard.press('Escape');
    expect(bench.complaints).toEqual([]);
  });

  test('lists the models, and answers a chat, whole and streamed alike', async () => {
    const models = (await (
      await fetch(`${url}/models`, { headers: { authorization: `Bearer ${key}` } })
    ).json()) as {
      data: { id: string }[];
    };
    expect(models.data.map(({ id }) => id)).toEqual(['tiny']);
    const ask = {
      model: 'tiny',
      messages: [{ role: 'user', content: 'What is 1 plus 2?' }],
      max_tokens: 12,
      seed: 5,
    };
    const whole = (await (await post('/chat/completions', ask)).json()) as {
      choices: { message: { content: string }; finish_reason: string }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
    expect(whole.usage.completion_tokens).toBeGreaterThan(0);
    expect(whole.usage.prompt_tokens).toBeGreaterThan(5);
    const streamed = await (await post('/chat/completions', { ...ask, stream: true })).text();
    const pieces = streamed
      .trimEnd()
      .split('\n\n')
      .map((event) => event.slice('data: '.length));
    expect(pieces.at(-1)).toBe('[DONE]');
    const text = pieces
      .slice(0, -1)
      .map((piece) => JSON.parse(piece) as { choices: { delta: { content?: string } }[] })
      .map(({ choices }) => choices[0]?.delta.content ?? '')
      .join('');
    expect(text).toBe(whole.choices[0]!.message.content);
  });

  test('goes on with a text as it stands', async () => {
    const ask = { model: 'tiny', prompt: 'What is', max_tokens: 5, temperature: 0 };
    const first = (await (await post('/completions', ask)).json()) as {
      choices: { text: string; finish_reason: string }[];
      usage: { prompt_tokens: number };
    };
    const [prompt] = (await bench.client.call('tokenize', { model: 'tiny', texts: ['What is'] })).ids;
    // Before it the BOS that this tokenizer puts there by default.
    expect(first.usage.prompt_tokens).toBe(prompt!.length + 1);
    const again = (await (await post('/completions', ask)).json()) as typeof first;
    expect(again.choices).toEqual(first.choices);
  });

  test('a new key ends the old one', async () => {
    const made = await bench.client.call('setOpenAi', { enabled: true, newKey: true });
    expect((await post('/chat/completions', {})).status).toBe(401);
    key = made.key!;
    const refused = await post('/chat/completions', {
      model: 'none',
      messages: [{ role: 'user', content: 'x' }],
    });
    expect([refused.status, await refused.json()]).toMatchObject([
      404,
      { error: { code: 'model_not_found' } },
    ]);
  });
});

test.runIf(needs('page'))(
  'caravan serve --openai prints the address, and the key once',
  async () => {
    const caravan = makeCaravanHome();
    const serve = async (...words: string[]) => {
      const { child, ended, output } = caravan.start('serve', '--port', '0', '--no-open', ...words);
      await expect.poll(output).toContain('http://');
      await expect.poll(output).toMatch(words.includes('--no-openai') ? /token=/ : /key/);
      child.kill('SIGINT');
      await ended;
      return output();
    };
    expect(await serve('--openai')).toMatch(
      /OpenAI's API: http:\/\/127\.0\.0\.1:\d+\/v1\n +key, shown this once: sk-caravan-/,
    );
    expect(await serve()).toMatch(/OpenAI's API: .*\n.*shown when it was made/);
    expect(await serve('--no-openai')).not.toContain('OpenAI');
    await caravan.endHost();
  },
  120_000,
);
