import { describe, expect, test } from 'vitest';
import type { Step } from '../../core/shared/run/run.ts';
import { alignColumns, nearestIndex, panned, zoomed } from './chartLines.ts';
import { expertLoad } from './expertLoad.ts';
import { smooth } from './smoothing.ts';

describe('smooth', () => {
  test('a constant stays that constant from its first point on; gaps stay gaps', () => {
    const out = smooth([3, 3, NaN, 3], 0.9);
    expect(out[0]).toBeCloseTo(3, 12);
    expect(out[2]).toBeNaN();
    expect(out[3]).toBeCloseTo(3, 12);
  });
  test('weight 0 changes nothing; more weight follows more slowly', () => {
    expect([...smooth([1, 5, 2], 0)]).toEqual([1, 5, 2]);
    expect(smooth([0, 0, 0, 10], 0.9)[3]).toBeLessThan(smooth([0, 0, 0, 10], 0.5)[3]!);
  });
});

describe('alignColumns', () => {
  test('lines with steps of their own meet on the union, with gaps between', () => {
    const { steps, columns } = alignColumns([
      { steps: [1, 2, 4], values: [10, 20, 40] },
      { steps: [2, 3], values: [2, NaN] },
    ]);
    expect([...steps]).toEqual([1, 2, 3, 4]);
    expect(columns).toEqual([
      [10, 20, undefined, 40],
      [undefined, 2, null, undefined],
    ]);
  });
  test('nothing gives nothing', () => {
    expect(alignColumns([]).columns).toEqual([]);
  });
});

test('nearestIndex finds the nearest step', () => {
  const steps = [10, 20, 40];
  expect([5, 14, 16, 29, 31, 99].map((step) => nearestIndex(steps, step))).toEqual([0, 0, 1, 1, 2, 2]);
  expect(nearestIndex([], 3)).toBe(-1);
});

describe('expertLoad', () => {
  const withShares = (expertShares: number[]) => ({ expertShares }) as unknown as Step;

  test('fair shares are 1 with entropy 1; a collapsed layer names its dead', () => {
    const load = expertLoad([withShares([0.25, 0.25, 0.25, 0.25, 1, 0, 0, 0])], 4, 32)!;
    expect([...load.ratio]).toEqual([1, 1, 1, 1, 4, 0, 0, 0]);
    expect(load.entropy[0]).toBeCloseTo(1, 12);
    expect(load.entropy[1]).toBeCloseTo(0, 12);
    expect(load.dead).toEqual([1, 2, 3].map((expert) => ({ layer: 1, expert })));
    expect(load.busiest).toEqual({ layer: 1, expert: 0, ratio: 4 });
  });
  test('averages the window alone, whatever the shares of a layer add up to', () => {
    const load = expertLoad([withShares([2, 0]), withShares([1, 1]), withShares([0, 2])], 2, 2)!;
    expect([...load.ratio]).toEqual([0.5, 1.5]);
    expect(load.steps).toBe(2);
  });
  test('a run without experts has no board', () => {
    expect(expertLoad([withShares([])], 8, 32)).toBeNull();
  });
});

test('a view moves and zooms within what there is', () => {
  const extent = { from: 1, to: 101 };
  expect(panned({ from: 11, to: 31 }, 0.5, extent)).toEqual({ from: 21, to: 41 });
  expect(panned({ from: 11, to: 31 }, -5, extent)).toEqual({ from: 1, to: 21 });
  expect(panned({ from: 11, to: 31 }, 50, extent)).toEqual({ from: 81, to: 101 });
  expect(zoomed(extent, 0.5, 51, extent)).toEqual({ from: 26, to: 76 });
  expect(zoomed({ from: 26, to: 76 }, 0.5, 26, extent)).toEqual({ from: 26, to: 51 });
  expect(zoomed({ from: 26, to: 76 }, 4, 51, extent)).toBeNull();
  expect(zoomed({ from: 26, to: 28 }, 0.5, 27, extent)).toEqual({ from: 26, to: 28 });
});
