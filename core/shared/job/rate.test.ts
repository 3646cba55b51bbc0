import { expect, test } from 'vitest';
import { observe, remainingMs, startRate, unitsPerSecond, type Rate } from './rate.ts';

function run(steps: number, perStepMs: number, from: Rate = startRate(0)): Rate {
  let rate = from;
  for (let i = 0; i < steps; i++) rate = observe(rate, rate.at + perStepMs, rate.done + 1, 10_000);
  return rate;
}

test('is hidden until five observations, then exact for a steady pace', () => {
  expect(remainingMs(run(4, 500), 100)).toBeNull();
  const rate = run(5, 500);
  expect(unitsPerSecond(rate)).toBeCloseTo(2, 10);
  expect(remainingMs(rate, 105)).toBeCloseTo(50_000, 6);
});

test('follows a change of pace within its window', () => {
  const slower = run(60, 1000, run(100, 100));
  expect(unitsPerSecond(slower)).toBeCloseTo(1, 1);
});

test('is never negative and unknown without a total', () => {
  expect(remainingMs(run(10, 100), 5)).toBe(0);
  expect(remainingMs(run(10, 100), null)).toBeNull();
});

test('starts over when a new stage counts from nothing', () => {
  expect(unitsPerSecond(observe(run(10, 100), 2000, 0, 10_000))).toBeNull();
});

test('says nothing of what does not move', () => {
  let rate = startRate(0);
  for (let i = 1; i < 20; i++) rate = observe(rate, i * 100, 0, 10_000);
  expect(remainingMs(rate, 10)).toBeNull();
});
