import { chmodSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Access, cookieName } from './Access.ts';

function makeAccess() {
  const file = join(mkdtempSync(join(tmpdir(), 'access-')), 'host', 'serve-token');
  const clock = { time: 1_000_000, now: () => clock.time };
  return { file, clock, access: new Access(file, clock), token: () => readFileSync(file, 'utf8').trim() };
}

const cookie = (session: string, port = 7717) => ({ cookie: `a=b; ${cookieName(port)}=${session}; c=d` });

test('the token has 32 bytes, lies in a file of its owner, and stays the same', () => {
  const { file, token } = makeAccess();
  expect(Buffer.from(token(), 'base64url')).toHaveLength(32);
  if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
  const first = token();
  const again = new Access(file);
  expect(token()).toBe(first);
  expect(again.admits({ authorization: `Bearer ${first}` }, 7717)).toBe(true);
});

test('a token that others could read, or that is none, is replaced', () => {
  const { file, token } = makeAccess();
  if (process.platform !== 'win32') {
    const first = token();
    chmodSync(file, 0o644);
    const access = new Access(file);
    expect(token()).not.toBe(first);
    expect(access.admits({ authorization: `Bearer ${first}` }, 7717)).toBe(false);
  }
  writeFileSync(file, 'short\n', { mode: 0o600 });
  new Access(file);
  expect(Buffer.from(token(), 'base64url')).toHaveLength(32);
});

test('only the right bearer token is admitted', () => {
  const { access, token } = makeAccess();
  expect(access.admits({ authorization: `Bearer ${token()}` }, 7717)).toBe(true);
  for (const authorization of [
    '',
    'Bearer',
    'Bearer ',
    `Basic ${token()}`,
    `Bearer ${token()}x`,
    `Bearer x${token()}`,
    token(),
  ])
    expect(access.admits({ authorization }, 7717), authorization).toBe(false);
  expect(access.admits({}, 7717)).toBe(false);
});

test('a launch token opens one session, once', () => {
  const { access } = makeAccess();
  const launch = access.createLaunchToken();
  const session = access.openSession(launch)!;
  expect(access.admits(cookie(session), 7717)).toBe(true);
  expect(access.openSession(launch)).toBeNull();
  expect(access.openSession('')).toBeNull();
  expect(access.openSession(session)).toBeNull();
  expect(access.admits({ authorization: `Bearer ${launch}` }, 7717)).toBe(false);
  expect(access.admits(cookie(launch), 7717)).toBe(false);
});

test('the token for programs opens no session', () => {
  const { access, token } = makeAccess();
  expect(access.openSession(token())).toBeNull();
});

test('a cookie counts on its own port alone', () => {
  const { access } = makeAccess();
  const session = access.openSession(access.createLaunchToken())!;
  expect(access.admits(cookie(session, 7718), 7717)).toBe(false);
  expect(access.admits({ cookie: `xcaravan_7717=${session}` }, 7717)).toBe(false);
  expect(access.admits({ cookie: `caravan_7717x=${session}` }, 7717)).toBe(false);
});

test('the cookie is HttpOnly, Strict, and Secure behind TLS', () => {
  const { access } = makeAccess();
  expect(access.setCookie('s', 7717, false)).toBe(
    'caravan_7717=s; HttpOnly; SameSite=Strict; Path=/; Max-Age=604800',
  );
  expect(access.setCookie('s', 7717, true)).toMatch(/; Secure$/);
});

test('a session ends after a week', () => {
  const { access, clock } = makeAccess();
  const session = access.openSession(access.createLaunchToken())!;
  clock.time += 604_800_000 - 1;
  expect(access.admits(cookie(session), 7717)).toBe(true);
  clock.time += 1;
  expect(access.admits(cookie(session), 7717)).toBe(false);
});

test('a new token ends the old one, every session and every launch token', () => {
  const { access, token } = makeAccess();
  const old = token();
  const session = access.openSession(access.createLaunchToken())!;
  const unused = access.createLaunchToken();
  access.rotate();
  expect(token()).not.toBe(old);
  expect(access.admits({ authorization: `Bearer ${old}` }, 7717)).toBe(false);
  expect(access.admits(cookie(session), 7717)).toBe(false);
  expect(access.openSession(unused)).toBeNull();
  expect(access.admits({ authorization: `Bearer ${token()}` }, 7717)).toBe(true);
});

test('of many unused launch tokens the newest sixteen count', () => {
  const { access } = makeAccess();
  const tokens = Array.from({ length: 17 }, () => access.createLaunchToken());
  expect(access.openSession(tokens[0]!)).toBeNull();
  expect(access.openSession(tokens[1]!)).not.toBeNull();
});
