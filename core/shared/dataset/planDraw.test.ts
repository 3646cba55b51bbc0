import { describe, expect, test } from 'vitest';
import { planDraw, share } from './planDraw.ts';
import { recipeSchema } from './recipe.ts';

const plan = (sources: object[], more: object, available: [rows: number, tokens?: number][]) =>
  planDraw(
    recipeSchema.parse({
      name: 'x',
      sources: sources.map((one, i) => ({ name: `s${i}`, source: `s${i}`, ...one })),
      ...more,
    }),
    available.map(([rows, tokens = null]) => ({ rows, tokens })),
  );
const amounts = (...given: Parameters<typeof plan>) => plan(...given).wanted.map(({ amount }) => amount);

describe('share', () => {
  test.each([
    [10, [1, 1, 1], [9, 9, 9], [4, 3, 3]],
    [10, [1, 1, 1], [1, 9, 9], [1, 5, 4]],
    [10, [1, 0, 3], [9, 9, 4], [6, 0, 4]],
    [10, [1, 1], [2, 3], [2, 3]],
    [0, [1, 2], [5, 5], [0, 0]],
    [7, [2, 1], [Infinity, Infinity], [5, 2]],
  ])('%i by %j below %j', (total, weights, caps, parts) => {
    expect(share(total, weights, caps)).toEqual(parts);
  });
});

describe('what each source gives', () => {
  test('all, a count, a fraction, or weights without a size', () => {
    expect(amounts([{}, { count: 5 }, { fraction: 0.25 }], {}, [[10], [9], [10]])).toEqual([10, 5, 3]);
    expect(amounts([{ weight: 3 }, { weight: 1 }], {}, [[90], [50]])).toEqual([90, 30]);
  });

  test('weights cut a size in rows or in tokens', () => {
    expect(amounts([{ weight: 2 }, { weight: 1 }], { size: { rows: 10 } }, [[90], [50]])).toEqual([7, 3]);
    expect(
      plan([{ weight: 1 }, { weight: 1 }], { size: { tokens: 1000 } }, [
        [9, 900],
        [9, 900],
      ]).wanted,
    ).toEqual([
      { unit: 'tokens', amount: 500 },
      { unit: 'tokens', amount: 500 },
    ]);
  });

  test('a short source is named with what would do', () => {
    expect(plan([{ count: 100 }, { count: 60 }], {}, [[80], [70]]).short).toEqual([
      { index: 0, unit: 'rows', asked: 100, available: 80, scale: 0.8 },
    ]);
    expect(plan([{ count: 100, replacement: true }], {}, [[80]]).short).toEqual([]);
  });

  test('scale shrinks all alike; topUp takes the rest from what others have', () => {
    const sources = [{ count: 100 }, { count: 60 }, {}];
    const available: [number][] = [[80], [70], [5]];
    expect(amounts(sources, { whenShort: 'scale' }, available)).toEqual([80, 48, 5]);
    expect(plan(sources, { whenShort: 'topUp' }, available)).toMatchObject({
      wanted: [{ amount: 80 }, { amount: 70 }, { amount: 5 }],
      missing: 10,
    });
    expect(
      amounts([{ count: 100 }, { count: 60 }, { count: 30 }], { whenShort: 'topUp' }, [[91], [90], [90]]),
    ).toEqual([91, 66, 33]);
  });
});
