import { describe, expect, test } from 'vitest';
import { parseYaml } from '../../cli/yamlFile.ts';
import { dedupSchema, nearDuplicateSettings } from './dedup.ts';
import { recipeSchema } from './recipe.ts';

const settings = (dedup: unknown) => nearDuplicateSettings(dedupSchema.parse(dedup));

describe('dedup of a recipe', () => {
  test('old recipes mean what they meant', () => {
    const recipe = (more: object) =>
      recipeSchema.parse({ name: 'x', sources: [{ name: 'a', source: 'a' }], ...more }).dedup;
    expect(recipe({})).toBe('exact');
    expect(recipe({ dedup: 'none' })).toBe('none');
    expect(recipe({ dedup: 'exact' })).toBe('exact');
    expect(settings('none')).toBeNull();
    expect(settings('exact')).toBeNull();
  });

  test('near is text-dedup’s setting unless it says otherwise', () => {
    const usual = { ngram: 5, permutations: 240, threshold: 0.7 };
    expect(settings('near')).toEqual(usual);
    expect(settings({ method: 'near' })).toEqual(usual);
    expect(settings({ method: 'near', threshold: 0.8, ngram: 3 })).toEqual({
      ...usual,
      threshold: 0.8,
      ngram: 3,
    });
    expect(settings({ method: 'near', preset: 'bigcode' })).toEqual({ ...usual, permutations: 256 });
    const datatrove = { ngram: 5, permutations: 112, bands: 14, threshold: 0.72 };
    expect(settings({ method: 'near', preset: 'datatrove' })).toEqual(datatrove);
    expect(settings({ method: 'near', preset: 'datatrove', ngram: 8 })).toEqual({ ...datatrove, ngram: 8 });
    expect(settings({ method: 'near', preset: 'datatrove', threshold: 0.9 })).toEqual({
      ngram: 5,
      permutations: 112,
      threshold: 0.9,
    });
  });
});

test.each([
  ['dedup: nearly', 3, 'dedup'],
  ['dedup: { method: near, tresholdd: 0.8 }', 3, 'dedup.tresholdd'],
  ['dedup:\n  method: near\n  threshold: 1.5', 5, 'dedup.threshold'],
  ['dedup:\n  method: near\n  permutations: 8\n  bands: 9', 6, 'dedup.bands'],
])('%j is refused at its line and field', (dedup, line, field) => {
  expect(() =>
    parseYaml(`name: x\nsources: [{ name: a, source: a }]\n${dedup}\n`, 'r.yaml', recipeSchema, 'bad_recipe'),
  ).toThrow(
    expect.objectContaining({
      code: 'bad_recipe',
      place: expect.objectContaining({ line, field }) as object,
    }),
  );
});
