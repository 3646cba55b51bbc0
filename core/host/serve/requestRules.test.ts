import { describe, expect, test } from 'vitest';
import { allowedNames, checkSource, normalHost } from './requestRules.ts';

const port = 7717;
const names = allowedNames(['127.0.0.1', '::1', 'localhost'], port, ['desk.example.org', 'other:8080']);

function check(
  headers: Record<string, string | string[]>,
  { method = 'GET', url = '/', upgrade = false } = {},
): number | null {
  const rawHeaders = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().flatMap((one) => [name, one]),
  );
  const single = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, [value].flat()[0]]),
  );
  return checkSource({ method, url, headers: single, rawHeaders }, names, upgrade)?.status ?? null;
}

const host = `127.0.0.1:${port}`;

describe('Host', () => {
  test.each([
    host,
    `localhost:${port}`,
    `LOCALHOST:${port}`,
    `[::1]:${port}`,
    'desk.example.org',
    `desk.example.org:${port}`,
    'other:8080',
  ])('%s is allowed', (name) => {
    expect(check({ host: name })).toBeNull();
  });

  test.each([
    '',
    'localhost',
    'localhost:80',
    `localhost:${port + 1}`,
    'evil.localhost.attacker.com',
    `evil.localhost.attacker.com:${port}`,
    `localhost.attacker.com:${port}`,
    `attacker.com:${port}`,
    `evil.localhost:${port}`,
    `localhost:${port}@attacker.com`,
    `user@localhost:${port}`,
    `localhost:${port}/path`,
    `localhost:${port}?x`,
    `localhost:${port}#x`,
    `localhost\\@attacker.com:${port}`,
    `127.1:${port}`,
    `0x7f.0.0.1:${port}`,
    `2130706433:${port}`,
    `0.0.0.0:${port}`,
    `[::ffff:127.0.0.1]:${port}`,
    `localhost:${port}, attacker.com`,
    'other',
    `127.0.0.1:0${port}`,
  ])("'%s' is not", (name) => {
    expect(check({ host: name })).toBe(403);
  });

  test('exactly one must be there', () => {
    expect(check({})).toBe(400);
    expect(check({ host: [host, 'attacker.com'] })).toBe(400);
  });

  test('a target that brings its own host is refused', () => {
    expect(check({ host }, { url: 'http://attacker.com/' })).toBe(400);
    expect(check({ host }, { url: '*' })).toBe(400);
  });

  test('it is checked before everything else', () => {
    expect(check({ host: 'attacker.com', origin: `http://${host}`, authorization: 'Bearer x' })).toBe(403);
  });

  test('port 80 may be left out', () => {
    expect(normalHost('desk.example.org:80')).toBe('desk.example.org');
    expect(allowedNames(['desk'], 80, []).hosts).toEqual(new Set(['desk']));
  });
});

describe('Origin', () => {
  test('must be one of the allowed names, with http or https', () => {
    for (const origin of [`http://${host}`, `http://localhost:${port}`, 'https://desk.example.org'])
      expect(check({ host, origin })).toBeNull();
    for (const origin of [
      'null',
      'http://attacker.com',
      `http://attacker.com:${port}`,
      `http://127.0.0.1:${port + 1}`,
      'http://127.0.0.1',
      'file://',
      '',
      `http://${host}.attacker.com`,
    ])
      expect(check({ host, origin }), origin).toBe(403);
  });

  test('an upgrade needs one, or a bearer token', () => {
    const upgrade = { url: '/contract', upgrade: true };
    expect(check({ host }, upgrade)).toBe(403);
    expect(check({ host, cookie: 'caravan_7717=x' }, upgrade)).toBe(403);
    expect(check({ host, authorization: 'Bearer x' }, upgrade)).toBeNull();
    expect(check({ host, origin: `http://${host}` }, upgrade)).toBeNull();
    expect(check({ host, origin: 'null' }, upgrade)).toBe(403);
    expect(check({ host, origin: 'http://attacker.com', authorization: 'Bearer x' }, upgrade)).toBe(403);
  });
});

describe('Sec-Fetch-Site', () => {
  const navigation = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };

  test('a request of another site is let in for opening the page alone', () => {
    for (const site of ['cross-site', 'same-site']) {
      expect(check({ host, 'sec-fetch-site': site, ...navigation })).toBeNull();
      expect(check({ host, 'sec-fetch-site': site, ...navigation }, { url: '/?token=x' })).toBeNull();
      expect(check({ host, 'sec-fetch-site': site, ...navigation }, { url: '/runs' })).toBe(403);
      expect(check({ host, 'sec-fetch-site': site, ...navigation }, { method: 'POST' })).toBe(403);
      expect(check({ host, 'sec-fetch-site': site })).toBe(403);
      expect(check({ host, 'sec-fetch-site': site, ...navigation, 'sec-fetch-dest': 'iframe' })).toBe(403);
      expect(check({ host, 'sec-fetch-site': site, ...navigation, 'sec-fetch-mode': 'no-cors' })).toBe(403);
      expect(
        check(
          { host, 'sec-fetch-site': site, origin: `http://${host}` },
          { url: '/contract', upgrade: true },
        ),
      ).toBe(403);
      expect(check({ host, 'sec-fetch-site': site, ...navigation }, { upgrade: true })).toBe(403);
    }
  });

  test('the page itself, and an address that was typed, pass', () => {
    for (const site of ['same-origin', 'none'])
      expect(check({ host, 'sec-fetch-site': site }, { url: '/runs' })).toBeNull();
  });

  test('what browsers do not send today is refused', () => {
    expect(check({ host, 'sec-fetch-site': 'something-new' })).toBe(403);
  });
});
