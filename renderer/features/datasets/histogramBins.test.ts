import { expect, test } from 'vitest';
import { binsPerOctave, binStart, type Spread } from '../../../core/shared/dataset/look.ts';
import { barsOf, commonBins } from './histogramBins.ts';

const binOf = (value: number) => Math.floor(binsPerOctave * Math.log2(1 + value));
const spreadOf = (values: number[]): Spread => {
  const bins = new Map<number, number>();
  for (const value of values) bins.set(binOf(value), (bins.get(binOf(value)) ?? 0) + 1);
  return {
    min: 0,
    max: 0,
    mean: 0,
    sum: 0,
    q10: 0,
    median: 0,
    q90: 0,
    bins: [...bins].map(([bin, rows]) => ({ bin, rows })).sort((a, b) => a.bin - b.bin),
  };
};

test('every whole number lies in the bar of its bin', () => {
  for (let value = 0; value < 5000; value++) {
    const bin = binOf(value);
    expect(binStart(bin), `${value}`).toBeLessThanOrEqual(value);
    expect(binStart(bin + 1), `${value}`).toBeGreaterThan(value);
  }
});

test('bars are without gaps and hold every row once', () => {
  const values = [0, 0, 1, 2, 3, 7, 100, 101, 4000];
  const bars = barsOf(spreadOf(values));
  expect(bars.reduce((sum, { rows }) => sum + rows, 0)).toBe(values.length);
  for (const [index, bar] of bars.entries()) {
    expect(bar.rows).toBe(values.filter((value) => value >= bar.from && value < bar.to).length);
    if (index > 0) expect(bar.from).toBe(bars[index - 1]!.to);
  }
});

test('groups share their axis', () => {
  const [a, b] = [spreadOf([1, 2]), spreadOf([1000])];
  const { first, last } = commonBins([a, b]);
  expect(barsOf(a, first, last).map(({ from }) => from)).toEqual(
    barsOf(b, first, last).map(({ from }) => from),
  );
});
