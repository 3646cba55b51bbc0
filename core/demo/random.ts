/**
 * The demo's own pseudo-random numbers: sfc32 (Chris Doty-Humphrey's "small fast counting" generator, 128 bits of
 * state, passes PractRand), seeded by the 32-bit finaliser of MurmurHash3 over (seed, stream, index).
 *
 * Every document and row of the demo is drawn from a generator of its own, so that any one of them can be made alone,
 * in any order, on any machine. Only 32-bit integer arithmetic and one exact division by 2^32 are used: the same seed
 * gives the same text wherever JavaScript runs.
 */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  /**
   * @param seed - user's seed, an integer of at most 53 bits
   * @param stream - names an independent sequence of the same seed (0 to 2^32 - 1)
   * @param index - position in that sequence, an integer of at most 53 bits
   */
  constructor(seed: number, stream = 0, index = 0) {
    const low = mix32(seed >>> 0) ^ mix32((stream ^ 0x9e3779b9) >>> 0);
    const high = mix32(Math.floor(seed / 0x100000000) ^ 0x85ebca6b);
    this.a = mix32(low + index) | 0;
    this.b = mix32(high ^ (Math.floor(index / 0x100000000) + 0x27d4eb2f)) | 0;
    this.c = mix32(low ^ 0xc2b2ae35) ^ (index | 0);
    for (let round = 0; round < 12; round++) this.next();
  }

  /** The next 32 random bits as an integer in [0, 2^32). */
  next(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** An integer in [low, high], both ends included. */
  int(low: number, high: number): number {
    return low + Math.floor((this.next() / 0x100000000) * (high - low + 1));
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability * 0x100000000;
  }

  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[Math.floor((this.next() / 0x100000000) * list.length)] as T;
  }

  /** `count` different positions of `list`, in random order; `count` must not exceed its length. */
  sample<T>(list: readonly T[], count: number): T[] {
    if (count > list.length) throw new RangeError(`cannot draw ${count} of ${list.length} elements`);
    if (count * 4 > list.length) return this.shuffle(list).slice(0, count);
    const taken: number[] = [];
    while (taken.length < count) {
      const at = this.int(0, list.length - 1);
      if (!taken.includes(at)) taken.push(at);
    }
    return taken.map((at) => list[at] as T);
  }

  /** A copy of `list` in random order (Fisher-Yates). */
  shuffle<T>(list: readonly T[]): T[] {
    const out = list.slice();
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.int(0, i);
      const kept = out[i] as T;
      out[i] = out[j] as T;
      out[j] = kept;
    }
    return out;
  }
}

/** MurmurHash3's 32-bit finaliser: every input bit changes about half of the output bits. */
function mix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** FNV-1a over UTF-16 code units, then finalised: the hash that puts a row into the train or the held-out side. */
export function textHash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix32(h);
}
