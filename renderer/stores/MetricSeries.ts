/** The points of one metric: typed arrays that grow in place, so that a step costs a few writes and no copy. */

/** Beyond this many points neighbours are merged; their lowest and highest value are kept. */
const capacityLimit = 4096;

export interface History {
  steps: readonly number[];
  values: readonly (number | null)[];
  min: readonly (number | null)[];
  max: readonly (number | null)[];
  nonFinite: readonly number[];
}

export class MetricSeries {
  length = 0;
  #steps = new Float64Array(256);
  #values = new Float64Array(256);
  #min = new Float64Array(256);
  #max = new Float64Array(256);
  #lost = new Float64Array(256);
  /** Whether any point stands for more than one step. */
  merged = false;

  static fromHistory(history: History): MetricSeries {
    const series = new MetricSeries();
    for (const [index, step] of history.steps.entries()) {
      const value = history.values[index] ?? NaN;
      series.#push(
        step,
        value,
        history.min[index] ?? value,
        history.max[index] ?? value,
        history.nonFinite[index] ?? 0,
      );
    }
    series.merged = history.steps.some((step, index) => index > 0 && step - history.steps[index - 1]! > 1);
    return series;
  }

  get lastStep(): number {
    return this.length === 0 ? -1 : this.#steps[this.length - 1]!;
  }
  get lastValue(): number | null {
    const value = this.length === 0 ? NaN : this.#values[this.length - 1]!;
    return Number.isFinite(value) ? value : null;
  }
  /** Views of the live arrays: valid until the next `append`. Non-finite values are NaN. */
  get steps(): Float64Array {
    return this.#steps.subarray(0, this.length);
  }
  get values(): Float64Array {
    return this.#values.subarray(0, this.length);
  }
  get min(): Float64Array {
    return this.#min.subarray(0, this.length);
  }
  get max(): Float64Array {
    return this.#max.subarray(0, this.length);
  }
  /** Steps that each point stands for whose value was not finite. */
  get lost(): Float64Array {
    return this.#lost.subarray(0, this.length);
  }

  /** A step at or before the newest drops what stands from there on. */
  append(step: number, value: number | null): void {
    while (this.length > 0 && this.#steps[this.length - 1]! >= step) this.length--;
    const number = value ?? NaN;
    this.#push(step, number, number, number, value === null ? 1 : 0);
    if (this.length >= capacityLimit) this.#mergeNeighbours();
  }

  #push(step: number, value: number, min: number, max: number, lost: number): void {
    if (this.length === this.#steps.length) {
      this.#steps = doubled(this.#steps);
      this.#values = doubled(this.#values);
      this.#min = doubled(this.#min);
      this.#max = doubled(this.#max);
      this.#lost = doubled(this.#lost);
    }
    this.#steps[this.length] = step;
    this.#values[this.length] = value;
    this.#min[this.length] = min;
    this.#max[this.length] = max;
    this.#lost[this.length] = lost;
    this.length++;
  }

  #mergeNeighbours(): void {
    const half = this.length >> 1;
    for (let i = 0; i < half; i++) {
      const [a, b] = [2 * i, 2 * i + 1];
      this.#steps[i] = this.#steps[b]!;
      this.#values[i] = this.#values[b]!;
      this.#min[i] = lower(this.#min[a]!, this.#min[b]!);
      this.#max[i] = -lower(-this.#max[a]!, -this.#max[b]!);
      this.#lost[i] = this.#lost[a]! + this.#lost[b]!;
    }
    this.length = half;
    this.merged = true;
  }
}

function doubled(array: Float64Array): Float64Array<ArrayBuffer> {
  const next = new Float64Array(array.length * 2);
  next.set(array);
  return next;
}

/** The lower of two, where NaN says nothing. */
function lower(a: number, b: number): number {
  return Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.min(a, b);
}
