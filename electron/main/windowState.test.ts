import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { placeWindow, readWindowState, writeWindowState } from './windowState.ts';

const first = { x: 0, y: 0, width: 1920, height: 1040 };
const second = { x: 1920, y: 0, width: 1280, height: 1024 };

test('it opens where it was', () => {
  const bounds = { x: 2000, y: 40, width: 900, height: 700 };
  expect(placeWindow(bounds, [first, second])).toEqual(bounds);
});

test('a screen that is gone, or too small, never hides it', () => {
  const bounds = { x: 2000, y: 40, width: 900, height: 700 };
  expect(placeWindow(bounds, [first])).toEqual({ x: 510, y: 170, width: 900, height: 700 });
  expect(placeWindow({ ...bounds, width: 3000, height: 2000 }, [first, second])).toEqual(second);
  expect(placeWindow(null, [first])).toEqual({ x: 320, y: 100, width: 1280, height: 840 });
  expect(placeWindow({ x: 1900, y: 1000, width: 900, height: 700 }, [first])).toEqual({
    x: 1020,
    y: 340,
    width: 900,
    height: 700,
  });
});

test('what was kept is read again, and what is damaged is passed over', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'window-')), 'deep/window.json');
  expect(readWindowState(file)).toBeNull();
  const state = { bounds: first, maximized: true };
  writeWindowState(file, state);
  expect(readWindowState(file)).toEqual(state);
  writeFileSync(file, '{"bounds":7}');
  expect(readWindowState(file)).toBeNull();
});
