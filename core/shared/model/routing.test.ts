import { expect, test } from 'vitest';
import { mutualInformation } from './routing.ts';

test('is ln 2 where each of two sources has its own expert', () => {
  const counts = { layers: 1, experts: 2, groups: 2, any: [10, 0, 0, 1000] };
  expect(mutualInformation(counts)).toBeCloseTo(Math.log(2), 12);
});

test('is 0 where sources choose alike, whatever their sizes', () => {
  expect(mutualInformation({ layers: 1, experts: 2, groups: 2, any: [1, 3, 100, 300] })).toBeCloseTo(0, 12);
});

test('is the mean over layers', () => {
  // (group, layer, expert): layer 0 tells the sources apart, layer 1 does not.
  const any = [4, 0, 2, 2, 0, 4, 2, 2];
  expect(mutualInformation({ layers: 2, experts: 2, groups: 2, any })).toBeCloseTo(Math.log(2) / 2, 12);
});

test('agrees with a case worked by hand', () => {
  // p = (3/4, 1/4) and (1/4, 3/4), mean (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
  const expected = 0.75 * Math.log(1.5) + 0.25 * Math.log(0.5);
  expect(mutualInformation({ layers: 1, experts: 2, groups: 2, any: [3, 1, 2, 6] })).toBeCloseTo(
    expected,
    12,
  );
});

test('is unknown for one source, and a source without tokens does not count', () => {
  expect(mutualInformation({ layers: 1, experts: 2, groups: 1, any: [3, 1] })).toBeNull();
  expect(mutualInformation({ layers: 1, experts: 2, groups: 2, any: [3, 1, 0, 0] })).toBeNull();
});
