import { expect, test } from 'vitest';
import { fuzzyMatch } from './fuzzyMatch.ts';

test('letters in order match; others do not', () => {
  expect(fuzzyMatch('thd', 'Theme: dark')).not.toBeNull();
  expect(fuzzyMatch('drk thm', 'Theme: dark')).not.toBeNull();
  expect(fuzzyMatch('xyz', 'Theme: dark')).toBeNull();
});

test('a whole word, and the beginning of a word, stand before scattered letters', () => {
  const score = (text: string) => fuzzyMatch('run', text)!.score;
  expect(score('Pause this run')).toBeGreaterThan(score('Return to unnamed'));
  expect(score('run-1')).toBeGreaterThan(score('outrun'));
  expect(fuzzyMatch('run', 'a run')!.at).toEqual([2, 3, 4]);
});
