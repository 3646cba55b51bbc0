import { mkdtempSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readLink, readOpenedFile, targetsOf } from './openTargets.ts';

describe('links', () => {
  test.each([
    ['caravan://run/r-1', '/runs/r-1'],
    ['caravan://chat/abc', '/chat/abc'],
    ['caravan://chat', '/chat'],
    ['caravan://source/s1/', '/datasets/sources/s1'],
    ['caravan://mix', '/datasets/mix'],
    ['caravan://mix/m1', '/datasets/mixes/m1'],
    // Dots are gone before anything is looked for.
    ['caravan://run/../../r1', '/runs/r1'],
  ])('%s shows %s', (link, path) => expect(readLink(link)).toEqual({ kind: 'route', path }));

  test.each([
    'caravan://run/a/b',
    'caravan://run/%2e%2e%2f',
    'caravan://constructor',
    'caravan://start/r1',
    `caravan://run/${'x'.repeat(65)}`,
    'https://run/r1',
    'javascript:alert(1)',
    'caravan',
  ])('%s shows nothing', (link) => expect(readLink(link)).toBeNull());
});

describe('files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'open-'));
  const write = (name: string, text = 'a: 1\n') => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };

  test('a recipe and a run are told apart by their names', () => {
    expect(readOpenedFile(write('recipe.yaml'))).toEqual({
      kind: 'recipe',
      name: 'recipe.yaml',
      text: 'a: 1\n',
    });
    expect(readOpenedFile(write('my.run.yml'))).toMatchObject({ kind: 'run', name: 'my.run.yml' });
  });

  test('others, folders, and what is too large are not read', () => {
    expect(readOpenedFile(write('secrets.yaml'))).toBeNull();
    expect(readOpenedFile(write('prerun.yaml'))).toBeNull();
    expect(readOpenedFile(join(dir, 'gone', 'run.yaml'))).toBeNull();
    const large = write('run.yaml');
    truncateSync(large, 1024 * 1024 + 1);
    expect(readOpenedFile(large)).toBeNull();
  });

  test('words of a start: options and what cannot be opened are passed over', () => {
    write('recipe.yaml');
    expect(targetsOf(['caravan', '--flag', 'recipe.yaml', 'caravan://jobs', 'other'], dir)).toEqual([
      { kind: 'recipe', name: 'recipe.yaml', text: 'a: 1\n' },
      { kind: 'route', path: '/jobs' },
    ]);
  });
});
