/** Lines as a chart takes them, and their alignment on one axis of steps. */
export interface ChartLine {
  label: string;
  /** A colour token, `--series-1`. */
  color: string;
  dash?: number[];
  steps: ArrayLike<number>;
  /** NaN: a gap. */
  values: ArrayLike<number>;
  /** Where points stand for several steps: what they hide. */
  min?: ArrayLike<number>;
  max?: ArrayLike<number>;
  /** How many values of each point were not finite: marked at the top. */
  lost?: ArrayLike<number>;
  /** On the right axis, with its own range. */
  right?: boolean;
  /** Few points, far apart: drawn as dots on a line. */
  sparse?: boolean;
}

/** What a chart is laid along. */
export interface ChartAxis {
  /** Before a value: "step", "tokens". */
  name: string;
  format: (value: number) => string;
}

/** Steps that a chart is zoomed to. */
export interface StepRange {
  from: number;
  to: number;
}

export const seriesColors = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `--series-${number}`);
/** By index, so that lines are told apart without colour. */
export const seriesDashes: number[][] = [
  [],
  [7, 3],
  [2, 2.5],
  [9, 3, 2, 3],
  [4, 4],
  [12, 4],
  [1.5, 4],
  [6, 2, 2, 2],
];

export interface Aligned {
  steps: Float64Array<ArrayBuffer>;
  /** One per input column: null is a gap, undefined a step of which this column has no point. */
  columns: (number | null | undefined)[][];
}

/** Puts columns with steps of their own on the union of all steps. Steps ascend within each. */
export function alignColumns(columns: { steps: ArrayLike<number>; values: ArrayLike<number> }[]): Aligned {
  const first = columns[0];
  const same = columns.every(
    ({ steps }) =>
      steps.length === first!.steps.length &&
      (steps === first!.steps ||
        (steps[0] === first!.steps[0] && steps[steps.length - 1] === first!.steps[steps.length - 1])),
  );
  if (!first) return { steps: new Float64Array(0), columns: [] };
  if (same) {
    return {
      steps: Float64Array.from(first.steps),
      columns: columns.map(({ values }) => Array.from(values, finiteOrNull)),
    };
  }
  const union = [...new Set(columns.flatMap(({ steps }) => Array.from(steps)))].sort((a, b) => a - b);
  const place = new Map(union.map((step, index) => [step, index]));
  return {
    steps: Float64Array.from(union),
    columns: columns.map(({ steps, values }) => {
      const out = new Array<number | null | undefined>(union.length).fill(undefined);
      for (let i = 0; i < steps.length; i++) out[place.get(steps[i]!)!] = finiteOrNull(values[i]!);
      return out;
    }),
  };
}

function finiteOrNull(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** A view moved by a share of its width, within what there is. */
export function panned(view: StepRange, share: number, extent: StepRange): StepRange {
  const width = view.to - view.from;
  const from = Math.max(extent.from, Math.min(extent.to - width, view.from + share * width));
  return { from, to: from + width };
}

/** A view made wider or narrower around one of its points; null where it would show everything. */
export function zoomed(view: StepRange, factor: number, around: number, extent: StepRange): StepRange | null {
  const from = Math.max(extent.from, around - (around - view.from) * factor);
  const to = Math.min(extent.to, around + (view.to - around) * factor);
  if (from <= extent.from && to >= extent.to) return null;
  return to - from < 2 ? view : { from, to };
}

/** @returns the index of the entry of ascending `steps` that is nearest to `step`; -1 where there is none */
export function nearestIndex(steps: ArrayLike<number>, step: number): number {
  let low = 0;
  let high = steps.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle]! <= step) low = middle;
    else high = middle;
  }
  return Math.abs(steps[high]! - step) < Math.abs(step - steps[low]!) ? high : low;
}
