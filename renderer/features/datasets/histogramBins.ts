import { binStart, type Spread } from '../../../core/shared/dataset/look.ts';

export interface Bar {
  /** Values in [from, to). */
  from: number;
  to: number;
  rows: number;
}

/** Bars without gaps from the first filled bin to the last; bins that hold the same whole numbers are one. */
export function barsOf(
  spread: Spread,
  first = spread.bins[0]?.bin ?? 0,
  last = spread.bins.at(-1)?.bin ?? -1,
): Bar[] {
  const rows = new Map(spread.bins.map((bin) => [bin.bin, bin.rows]));
  const bars: Bar[] = [];
  for (let bin = first; bin <= last; bin++) {
    const from = binStart(bin);
    const to = binStart(bin + 1);
    if (to === from) continue;
    bars.push({ from, to, rows: rows.get(bin) ?? 0 });
  }
  return bars;
}

/** The bins that hold anything in any of them. */
export function commonBins(spreads: readonly Spread[]): { first: number; last: number } {
  const bins = spreads.flatMap((spread) => spread.bins.map(({ bin }) => bin));
  return { first: Math.min(...bins), last: Math.max(...bins) };
}
