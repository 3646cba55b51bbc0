import { describe, expect, test } from 'vitest';
import { MetricSeries } from './MetricSeries.ts';

describe('MetricSeries', () => {
  test('keeps every step until it is full, non-finite ones as NaN', () => {
    const series = new MetricSeries();
    for (let step = 1; step <= 1000; step++) series.append(step, step === 500 ? null : step / 2);
    expect(series.length).toBe(1000);
    expect(series.steps[999]).toBe(1000);
    expect(series.values[499]).toBeNaN();
    expect(series.lastValue).toBe(500);
    expect(series.merged).toBe(false);
  });

  test('a step that comes again drops what a resumed run superseded', () => {
    const series = new MetricSeries();
    for (let step = 1; step <= 10; step++) series.append(step, step);
    series.append(7, 70);
    expect([...series.steps]).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(series.lastValue).toBe(70);
  });

  test('merging neighbours hides no spike and keeps the end', () => {
    const series = new MetricSeries();
    for (let step = 1; step <= 20_001; step++)
      series.append(step, step === 777 ? 99 : step === 778 ? null : 1);
    expect(series.length).toBeLessThan(4096);
    expect(series.merged).toBe(true);
    expect(Math.max(...series.max)).toBe(99);
    expect(series.lastStep).toBe(20_001);
    expect([...series.steps].every((step, index, all) => index === 0 || step > all[index - 1]!)).toBe(true);
  });

  test('history in buckets knows that its points stand for more', () => {
    const series = MetricSeries.fromHistory({
      steps: [4, 8],
      values: [1, null],
      min: [0.5, null],
      max: [3, null],
      nonFinite: [0, 4],
    });
    expect(series.merged).toBe(true);
    expect([series.min[0], series.max[0]]).toEqual([0.5, 3]);
    expect(series.lastValue).toBeNull();
    const exact = MetricSeries.fromHistory({
      steps: [1, 2],
      values: [1, 2],
      min: [1, 2],
      max: [1, 2],
      nonFinite: [0, 0],
    });
    expect(exact.merged).toBe(false);
  });
});
