import { expect, test } from 'vitest';
import { chunksOf } from './chunks.ts';

const cut = (rows: string[], maxRows: number, maxChars: number) => [
  ...chunksOf(rows, maxRows, (row) => row.length, maxChars),
];

test('cuts by rows and by text, and keeps every row in order', () => {
  expect(cut(['a', 'b', 'c', 'd', 'e'], 2, 100)).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
  expect(cut(['aaa', 'bb', 'c', 'dddd'], 100, 5)).toEqual([
    ['aaa', 'bb'],
    ['c', 'dddd'],
  ]);
  expect(cut(['aaaaaaaaa', '', 'bbbbbbbb'], 100, 5), 'too large for any').toEqual([
    ['aaaaaaaaa'],
    [''],
    ['bbbbbbbb'],
  ]);
  expect(cut([], 2, 5)).toEqual([]);
});
