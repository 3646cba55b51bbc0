/** Every setting of the app that keeps strangers out, read back from a fake Electron. */
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { contentSecurityPolicy } from '../../core/host/serve/securityHeaders.ts';
import { FakeContents, fakeElectron } from '../../tests/support/fakeElectron.ts';
import { pageResponder } from './pageProtocol.ts';
import {
  guardContents,
  guardSession,
  isPageUrl,
  pageSchemePrivileges,
  webAddress,
  windowPreferences,
} from './security.ts';
import { utilityEnvironment } from './spawnUtility.ts';

describe('the window', () => {
  test('isolates the page and gives it nothing of Node', () => {
    expect(windowPreferences('/preload.cjs')).toEqual({
      preload: '/preload.cjs',
      nodeIntegration: false,
      nodeIntegrationInWorker: false,
      nodeIntegrationInSubFrames: false,
      contextIsolation: true,
      sandbox: true,
      webSecurity: true,
      allowRunningInsecureContent: false,
      experimentalFeatures: false,
      webviewTag: false,
      navigateOnDragDrop: false,
      safeDialogs: true,
      spellcheck: false,
      backgroundThrottling: true,
    });
  });

  test('its scheme is standard and secure, and bypasses no policy', () => {
    expect(pageSchemePrivileges).toEqual({
      standard: true,
      secure: true,
      supportFetchAPI: true,
      stream: true,
      codeCache: true,
    });
  });

  test.each([
    ['app://workbench/', true],
    ['app://workbench/#/runs/1', true],
    ['app://other/', false],
    ['app://workbench.evil/', false],
    ['https://workbench/', false],
    ['file:///etc/passwd', false],
    ['javascript:alert(1)', false],
    ['data:text/html,x', false],
    ['no address', false],
  ])('%s is the page: %s', (url, expected) => expect(isPageUrl(url)).toBe(expected));
});

describe('what comes to be in it', () => {
  const contents = new FakeContents();
  guardContents(contents as never);

  test.each(['will-navigate', 'will-frame-navigate', 'will-redirect'])('%s leads nowhere else', (name) => {
    const went = (url: string) => {
      let prevented = false;
      contents.emit(name, { url, preventDefault: () => (prevented = true) });
      return !prevented;
    };
    expect(went('app://workbench/#/jobs')).toBe(true);
    expect(went('https://example.com/')).toBe(false);
    expect(went('app://elsewhere/')).toBe(false);
    expect(went('file:///etc/passwd')).toBe(false);
  });

  test('no further window and no webview', () => {
    expect(contents.openHandler!({ url: 'app://workbench/' })).toEqual({ action: 'deny' });
    let prevented = false;
    contents.emit('will-attach-webview', { preventDefault: () => (prevented = true) });
    expect(prevented).toBe(true);
  });
});

describe('the session', () => {
  const { session, permission } = fakeElectron('/nowhere');
  guardSession(session as never);
  const asked = (name: string, requestingUrl: string) => {
    let granted: boolean | null = null;
    permission['request']!({}, name, (answer: boolean) => (granted = answer), { requestingUrl });
    return granted;
  };

  test.each([
    'media',
    'geolocation',
    'notifications',
    'clipboard-read',
    'fileSystem',
    'openExternal',
    'hid',
    'display-capture',
    'unknown',
  ])('refuses %s', (name) => {
    expect(asked(name, 'app://workbench/')).toBe(false);
    expect(permission['check']!(null, name, 'app://workbench/', {})).toBe(false);
  });

  test('lets the page copy, and nobody else', () => {
    expect(asked('clipboard-sanitized-write', 'app://workbench/')).toBe(true);
    expect(asked('clipboard-sanitized-write', 'https://example.com/')).toBe(false);
    expect(permission['check']!(null, 'clipboard-sanitized-write', 'app://workbench/', {})).toBe(true);
    expect(permission['check']!(null, 'clipboard-sanitized-write', 'https://example.com', {})).toBe(false);
  });

  test('gives no device and no screen', () => {
    expect(permission['device']!({})).toBe(false);
    expect(permission['display']).toBeNull();
  });

  test('saves what the page made and nothing from elsewhere', () => {
    const saved = (url: string) => {
      let prevented = false;
      session.emit('will-download', { preventDefault: () => (prevented = true) }, { getURL: () => url });
      return !prevented;
    };
    expect(saved('blob:app://workbench/1f')).toBe(true);
    expect(saved('https://example.com/x.exe')).toBe(false);
  });
});

describe('the page protocol', () => {
  const root = mkdtempSync(join(tmpdir(), 'page-'));
  mkdirSync(join(root, 'assets'));
  writeFileSync(join(root, 'index.html'), '<!doctype html>page');
  writeFileSync(join(root, 'assets/a.js'), 'x');
  writeFileSync(join(root, 'secret.key'), 'x');
  writeFileSync(join(tmpdir(), 'outside.json'), '{}');
  symlinkSync(join(tmpdir(), 'outside.json'), join(root, 'link.json'));
  const respond = pageResponder(root);
  const get = (url: string, method = 'GET') => respond(new Request(url, { method }));

  test('sends files of the page under the headers of serve', async () => {
    const page = await get('app://workbench/');
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('page');
    expect(page.headers.get('content-security-policy')).toBe(contentSecurityPolicy);
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
    expect(page.headers.get('referrer-policy')).toBe('no-referrer');
    expect(page.headers.get('cross-origin-opener-policy')).toBe('same-origin');
    expect((await get('app://workbench/assets/a.js')).headers.get('content-type')).toMatch('text/javascript');
  });

  test.each([
    ['another host', 'app://other/index.html', 404],
    ['dots that were encoded', 'app://workbench/%2e%2e%2foutside.json', 400],
    ['dots encoded twice', 'app://workbench/%252e%252e%252foutside.json', 400],
    ['a backslash', 'app://workbench/..%5coutside.json', 400],
    ['a zero byte', 'app://workbench/index.html%00.json', 400],
    ['a broken encoding', 'app://workbench/%zz', 400],
    ['a drive or stream', 'app://workbench/index.html:x.json', 400],
    ['a link that leads out', 'app://workbench/link.json', 400],
    ['what is no part of a page', 'app://workbench/secret.key', 404],
    ['nothing', 'app://workbench/none.js', 404],
  ])('refuses %s', async (_name, url, status) => {
    const answer = await get(url);
    expect(answer.status).toBe(status);
    expect(answer.headers.get('content-security-policy')).toBe(contentSecurityPolicy);
    expect(await answer.text()).toBe('');
  });

  test('takes no other method', async () => {
    expect((await get('app://workbench/', 'POST')).status).toBe(405);
  });
});

describe('links that leave', () => {
  test.each([
    ['https://example.com/a?b', true],
    ['http://example.com/', false],
    ['https://user:word@example.com/', false],
    ['file:///etc/passwd', false],
    ['smb://host/share', false],
    ['javascript:alert(1)', false],
    [`https://example.com/${'x'.repeat(3000)}`, false],
    [7, false],
  ])('%s is opened: %s', (url, expected) => expect(webAddress(url) !== null).toBe(expected));
});

test('processes that compute get no tokens of other programs', () => {
  const env = {
    PATH: '/bin',
    HF_TOKEN: 'own',
    https_proxy: 'p',
    AWS_SECRET_ACCESS_KEY: 'x',
    NODE_OPTIONS: '-r x',
  };
  expect(utilityEnvironment(env)).toEqual({ PATH: '/bin', HF_TOKEN: 'own', https_proxy: 'p' });
});
