/** The page behind its server in a real browser: what a Content-Security-Policy or a cookie breaks shows only there. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectOrStart } from '../core/host/connect.ts';
import type { Client } from '../core/shared/contract/client.ts';
import { browserPath, needs } from './support/skip.ts';

const entry = fileURLToPath(new URL('support/fakeHostMain.ts', import.meta.url));
const able = needs('browser', 'the page in a browser') && needs('page');

describe.runIf(able)('the served page', () => {
  let client: Client;
  let browser: Browser;

  beforeAll(async () => {
    const home = mkdtempSync(join(tmpdir(), 'serve-'));
    client = await connectOrStart({ home, entry });
    browser = await chromium.launch({ executablePath: browserPath()!, args: ['--no-sandbox'] });
  });

  afterAll(async () => {
    await browser?.close();
    await client?.call('shutdownHost', {});
    client?.close();
  });

  const serve = () => client.call('startServe', { port: 0 });

  test('opens by the printed address, connects, and breaks no rule of its policy', async () => {
    const { url, port } = await serve();
    const context = await browser.newContext();
    const page = await context.newPage();
    const violations: string[] = [];
    page.on('console', (message) => {
      if (/Content.Security.Policy|Refused to/i.test(message.text())) violations.push(message.text());
    });
    let received = 0;
    page.on('websocket', (socket) => socket.on('framereceived', () => received++));
    const socket = page.waitForEvent('websocket');
    const response = await page.goto(url);
    expect(response!.status()).toBe(200);
    expect(page.url(), 'the token is out of the address').not.toContain('token');
    const opened = await socket;
    expect(opened.url()).toBe(`ws://127.0.0.1:${port}/contract`);
    await expect.poll(() => received, { timeout: 10_000 }).toBeGreaterThan(0);
    expect(violations).toEqual([]);
    const [cookie] = await context.cookies();
    expect(cookie).toMatchObject({ name: `caravan_${port}`, httpOnly: true, sameSite: 'Strict' });
    expect(await page.evaluate(() => document.cookie), 'out of reach for scripts').toBe('');
    // The session, not the address, is what lets it in again.
    expect((await page.reload())!.status()).toBe(200);
    await context.close();
  });

  test('a used address opens nothing, and says how to get another', async () => {
    const { url } = await serve();
    const first = await browser.newContext();
    await (await first.newPage()).goto(url);
    const second = await browser.newContext();
    const page = await second.newPage();
    expect((await page.goto(url))!.status()).toBe(401);
    expect(await page.textContent('body')).toContain('caravan serve');
    await first.close();
    await second.close();
  });

  test("another site's page reaches neither files nor socket, though the browser has a session", async () => {
    const { url, port } = await serve();
    const context = await browser.newContext();
    await (await context.newPage()).goto(url);
    const stranger = await context.newPage();
    // localhost is an allowed name, but another site than 127.0.0.1, and on another port another origin.
    await stranger.route('http://stranger.test/**', (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>stranger</title>' }),
    );
    await stranger.goto('http://stranger.test/');
    const outcome = await stranger.evaluate(async (port) => {
      const socket = await new Promise<string>((resolve) => {
        const tried = new WebSocket(`ws://127.0.0.1:${port}/contract`);
        tried.onopen = () => resolve('open');
        tried.onerror = () => resolve('refused');
      });
      const fetched = await fetch(`http://127.0.0.1:${port}/index.html`, { credentials: 'include' }).then(
        () => 'read',
        () => 'refused',
      );
      const image = await fetch(`http://127.0.0.1:${port}/`, {
        mode: 'no-cors',
        credentials: 'include',
      }).then(
        (response) => response.type,
        () => 'refused',
      );
      const frame = document.createElement('iframe');
      frame.src = `http://127.0.0.1:${port}/`;
      document.body.append(frame);
      await new Promise((resolve) => (frame.onload = resolve));
      return { socket, fetched, image };
    }, port);
    expect(outcome.socket).toBe('refused');
    expect(outcome.fetched).toBe('refused');
    expect(outcome.image).not.toBe('basic');
    expect(stranger.frames()[1]!.url(), 'the frame shows an error, not the page').not.toBe(
      `http://127.0.0.1:${port}/`,
    );
    await context.close();
  });

  test('a link on another site opens the page all the same', async () => {
    const { url, port } = await serve();
    const context = await browser.newContext();
    await (await context.newPage()).goto(url);
    const stranger = await context.newPage();
    await stranger.route('http://stranger.test/**', (route) =>
      route.fulfill({
        contentType: 'text/html',
        body: `<!doctype html><a href="http://127.0.0.1:${port}/">open</a>`,
      }),
    );
    await stranger.goto('http://stranger.test/');
    await stranger.click('a');
    await expect.poll(() => stranger.title(), { timeout: 10_000 }).toMatch(/Caravan/);
    await expect.poll(() => stranger.locator('script[type=module]').count()).toBeGreaterThan(0);
    await context.close();
  });
});
