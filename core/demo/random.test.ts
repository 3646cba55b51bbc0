import { describe, expect, it } from 'vitest';
import { Random, textHash } from './random.ts';

const draw = (random: Random, count: number): number[] => Array.from({ length: count }, () => random.next());

describe('Random', () => {
  it('gives the recorded numbers, so that text stays the same from release to release', () => {
    expect(draw(new Random(1), 4)).toEqual([357770397, 239797686, 4202184554, 3670317269]);
    expect(draw(new Random(20260101, 3, 5_000_000_000), 3)).toEqual([2652733976, 1249277667, 2520444106]);
  });

  it('tells seeds, streams and indices apart, also above 2^32', () => {
    const firsts = [
      new Random(1, 0, 0),
      new Random(2, 0, 0),
      new Random(1, 1, 0),
      new Random(1, 0, 1),
      new Random(1 + 2 ** 32, 0, 0),
      new Random(1, 0, 2 ** 32),
    ].map((random) => draw(random, 2).join());
    expect(new Set(firsts).size).toBe(firsts.length);
  });

  it('draws whole ranges evenly', () => {
    const random = new Random(7);
    const counts = new Array<number>(6).fill(0);
    for (let i = 0; i < 6000; i++) counts[random.int(1, 6) - 1]!++;
    // Standard deviation of each count is 29: six of them on either side.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(175);
  });

  it('is even over the first draw of neighbouring indices, which is how documents are drawn', () => {
    let sum = 0;
    for (let index = 0; index < 4000; index++) sum += new Random(3, 9, index).next() / 2 ** 32;
    expect(Math.abs(sum / 4000 - 0.5)).toBeLessThan(0.03);
  });

  it('samples without repetition and keeps the list as it was', () => {
    const list = Array.from({ length: 40 }, (_, i) => i);
    for (const count of [0, 1, 5, 30, 40]) {
      expect(new Set(new Random(5, 0, count).sample(list, count)).size).toBe(count);
    }
    expect(new Random(5).shuffle(list).sort((a, b) => a - b)).toEqual(list);
    expect(list[0]).toBe(0);
    expect(() => new Random(5).sample(list, 41)).toThrow('cannot draw 41 of 40');
  });
});

describe('textHash', () => {
  it('differs where texts differ by one character', () => {
    expect(new Set(['', 'a', 'b', 'ab', 'ba', 'a ', 'ä'].map(textHash)).size).toBe(7);
  });
});
