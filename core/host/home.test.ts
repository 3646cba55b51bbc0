import { chmodSync, mkdtempSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { homePath, openHome } from './home.ts';

test('finds the folder for application data of each platform, CARAVAN_HOME first', () => {
  expect(homePath({ CARAVAN_HOME: '/data/c' }, 'linux', '/home/u')).toBe('/data/c');
  expect(homePath({ CARAVAN_HOME: '' }, 'linux', '/home/u')).toBe('/home/u/.local/share/caravan');
  expect(homePath({ XDG_DATA_HOME: '/x' }, 'linux', '/home/u')).toBe('/x/caravan');
  expect(homePath({ XDG_DATA_HOME: 'relative' }, 'linux', '/home/u')).toBe('/home/u/.local/share/caravan');
  expect(homePath({}, 'darwin', '/Users/u')).toBe('/Users/u/Library/Application Support/Caravan');
  expect(homePath({ LOCALAPPDATA: '/l' }, 'win32', '/u')).toBe(join('/l', 'Caravan'));
});

test('makes a home for its owner alone and gives its true path', () => {
  const base = mkdtempSync(join(tmpdir(), 'home-'));
  const home = openHome(join(base, 'a', '..', 'b'));
  expect(home).toBe(join(realpathSync(base), 'b'));
  if (process.platform === 'win32') return;
  expect(statSync(home).mode & 0o777).toBe(0o700);
  chmodSync(home, 0o777);
  openHome(home);
  expect(statSync(home).mode & 0o777, 'others could have written to it').toBe(0o700);
  chmodSync(home, 0o750);
  openHome(home);
  expect(statSync(home).mode & 0o777, "the owner's own choice").toBe(0o750);
});

test('says which folder cannot be a home', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'home-')), 'file');
  writeFileSync(file, '');
  expect(() => openHome(join(file, 'home'))).toThrow(
    expect.objectContaining({ code: 'bad_option', place: { file: join(file, 'home') } }),
  );
});
