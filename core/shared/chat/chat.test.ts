import { expect, test } from 'vitest';
import { describePace } from './chat.ts';

test('an answer of a few tokens says how long it is, not how fast', () => {
  expect(describePace(1, 4000)).toEqual(['1 token']);
  expect(describePace(7, 4000)).toEqual(['7 tokens']);
  expect(describePace(8, 41.66)).toEqual(['8 tokens', '41.7 tokens/s']);
});
