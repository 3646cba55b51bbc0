/**
 * How fast something goes and when it will be done: an exponential mean of units per millisecond over `windowMs` of
 * recent time. Pure: each observation gives the next state.
 */
export interface Rate {
  readonly samples: number;
  readonly at: number;
  readonly done: number;
  /** Weighted sums of units and of time; their quotient needs no correction for a young mean. */
  readonly units: number;
  readonly time: number;
}

export function startRate(at: number, done = 0): Rate {
  return { samples: 0, at, done, units: 0, time: 0 };
}

/** `done` is the total so far; going back (a new stage) starts over. */
export function observe(rate: Rate, at: number, done: number, windowMs: number): Rate {
  if (done < rate.done) return startRate(at, done);
  const elapsed = at - rate.at;
  if (elapsed <= 0) return { ...rate, done };
  const keep = Math.exp(-elapsed / windowMs);
  return {
    samples: rate.samples + 1,
    at,
    done,
    units: rate.units * keep + (done - rate.done),
    time: rate.time * keep + elapsed,
  };
}

/** Observations before a rate is worth showing. */
const neededSamples = 5;

/** Units per second; null until known. */
export function unitsPerSecond(rate: Rate): number | null {
  return rate.samples < neededSamples || rate.units <= 0 ? null : (rate.units / rate.time) * 1000;
}

/** Milliseconds until `total`; null until known, never negative. */
export function remainingMs(rate: Rate, total: number | null): number | null {
  const perSecond = unitsPerSecond(rate);
  if (perSecond === null || total === null) return null;
  return (Math.max(0, total - rate.done) / perSecond) * 1000;
}
