import { expect, test } from 'vitest';
import { stopPatienceMs, type Pace } from './stopDeadline.ts';

const minute = 60_000;

test.each<[Partial<Pace>, number]>([
  [{ phase: 'training', longestStepMs: 500 }, 2 * minute],
  [{ phase: 'training', longestStepMs: 3 * minute }, 9 * minute],
  // A first step, whose length nobody knows yet, and what says nothing on its way.
  [{ phase: 'training' }, 15 * minute],
  [{ phase: 'loading' }, 15 * minute],
  [{ phase: 'saving', longestStepMs: 500 }, 15 * minute],
  [{ phase: 'evaluating', longestEvaluationMs: 10 * minute }, 30 * minute],
  [{ phase: null }, 15 * minute],
])('after %j an engine may be silent for %i ms', (pace, patience) => {
  expect(stopPatienceMs({ phase: null, longestStepMs: 0, longestEvaluationMs: 0, ...pace })).toBe(patience);
});
