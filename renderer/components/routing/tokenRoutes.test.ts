import { expect, test } from 'vitest';
import { expertsOfToken, firstCounts, firstExpert } from './tokenRoutes.ts';

const token = (text: string) => ({ text, ids: [1], special: false, target: true });
/** Two tokens, three layers, top 2 of 4. */
const routes = {
  layers: 3,
  experts: 4,
  topK: 2,
  tokens: [token('a'), token('b')],
  chosen: [3, 0, 1, 2, 3, 1, /* b */ 2, 1, 1, 0, 0, 3],
  weights: [0.9, 0.1, 0.6, 0.4, 0.5, 0.5, /* b */ 0.7, 0.3, 0.8, 0.2, 0.55, 0.45],
};

test('a token is of the expert that its layer, or most layers, chose first', () => {
  expect([0, 1, 2].map((layer) => firstExpert(routes, 0, layer))).toEqual([3, 1, 3]);
  expect(firstExpert(routes, 0, null)).toBe(3);
  // One vote each: the lowest.
  expect(firstExpert(routes, 1, null)).toBe(0);
});

test('experts of a token by layer with their weights', () => {
  expect(expertsOfToken(routes, 1)[1]).toEqual({
    layer: 1,
    slots: [
      { expert: 1, weight: 0.8 },
      { expert: 0, weight: 0.2 },
    ],
  });
});

test('counts over some tokens', () => {
  expect(firstCounts(routes, [0, 1], 1)).toEqual([0, 2, 0, 0]);
  expect(firstCounts(routes, [0], null)).toEqual([0, 0, 0, 1]);
});
