import { describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import type { NearDuplicateOptions } from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';

const options: NearDuplicateOptions = { ngram: 5, permutations: 240, threshold: 0.7, seed: 42, threads: 2 };
const one = 'the first of two rows that are the same but for a single word at the very end of it all here';
const two = `${one.slice(0, -4)}there`;
const texts = [one, 'nothing of the kind, in quite different words from beginning to end', two, '!?'];

describe.runIf(needs('addon'))('the addon finds near-duplicates', () => {
  const create = (more: object = {}) => loadAddon().createNearDuplicates({ ...options, ...more });

  test('signs, names candidates, and judges what is loaded', async () => {
    const finder = await create();
    expect([finder.bands, finder.rowsPerBand]).toEqual([24, 10]);
    await finder.add(texts.slice(0, 1));
    await finder.add(texts.slice(1));
    expect(await finder.findCandidates()).toEqual({
      rows: Int32Array.of(0, 2),
      offsets: Int32Array.of(0, 2),
    });
    await finder.load(Int32Array.of(0, 2), [one, two]);
    const lost = await finder.verify();
    // 22 words each, 18 shingles, of which the last differs.
    expect(lost).toEqual({
      rows: Int32Array.of(2),
      kept: Int32Array.of(0),
      jaccard: Float64Array.of(17 / 19),
      linked: Int32Array.of(0),
      linkedJaccard: Float64Array.of(17 / 19),
    });
    expect((await finder.verify()).rows).toHaveLength(0);
    finder.dispose();
    finder.dispose();
    await expect(finder.add(texts)).rejects.toMatchObject({ code: 'wrong_state' });
    expect(() => finder.bands).toThrow(expect.objectContaining({ code: 'wrong_state' }));
  });

  test('bands as they are asked for', async () => {
    const finder = await create({ permutations: 112, bands: 14 });
    expect([finder.bands, finder.rowsPerBand]).toEqual([14, 8]);
  });

  test('one call at a time, in order', async () => {
    const finder = await create({ threads: 1 });
    const adding = finder.add(Array.from({ length: 2000 }, () => one.repeat(10)));
    await expect(finder.add(texts)).rejects.toMatchObject({ code: 'wrong_state' });
    await adding;
    await expect(finder.load(Int32Array.of(0), [one])).rejects.toMatchObject({ code: 'wrong_state' });
    await finder.findCandidates();
    await expect(finder.add(texts)).rejects.toMatchObject({ code: 'wrong_state' });
    await finder.load(Int32Array.of(0), [one]);
    await expect(finder.verify()).rejects.toMatchObject({ code: 'wrong_state' });
  });

  test('refuses options and texts by name', async () => {
    const bad = (field: string) => ({
      code: 'bad_option',
      message: expect.stringContaining(field) as string,
    });
    await expect(create({ ngram: 0 })).rejects.toMatchObject(bad('ngram'));
    await expect(create({ threshold: 1.5 })).rejects.toMatchObject(bad('threshold'));
    await expect(create({ permutations: 8, bands: 9 })).rejects.toMatchObject(bad('bands'));
    await expect(create({ perms: 8 })).rejects.toMatchObject(bad('perms'));
    const finder = await create();
    await expect(finder.add('text' as never)).rejects.toMatchObject(bad('texts'));
    await expect(finder.add(['fine', '\uD800'])).rejects.toMatchObject({
      code: 'invalid_utf8',
      message: expect.stringContaining('texts[1]') as string,
    });
    await finder.findCandidates();
    await expect(finder.load(Int32Array.of(0), [one])).rejects.toMatchObject(bad('row 0'));
    await expect(finder.load(Int32Array.of(), [one])).rejects.toMatchObject(bad('rows'));
  });
});
