/**
 * Exponential moving average without the pull of its start (debiased, as Adam's moments are). A gap (NaN) stays a gap
 * and does not pull the average.
 * @param weight of what came before: 0 leaves the values as they are
 */
export function smooth(values: ArrayLike<number>, weight: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(values.length);
  let average = 0;
  let total = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (Number.isNaN(value)) {
      out[i] = NaN;
      continue;
    }
    average = weight * average + (1 - weight) * value;
    total = weight * total + (1 - weight);
    out[i] = average / total;
  }
  return out;
}
