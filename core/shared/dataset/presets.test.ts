import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mixPresetNames, mixPresets, presetRecipe } from './presets.ts';
import { recipeSchema } from './recipe.ts';
import { recipeJsonSchema } from './recipeJsonSchema.ts';

describe('presets', () => {
  test.each(mixPresetNames)('%s is a recipe of as many rows as the paper’s', (name) => {
    const recipe = recipeSchema.parse(
      presetRecipe(name, {
        slimorca: { source: 'slimorca' },
        'magicoder-oss': { path: 'oss.jsonl' },
        'magicoder-evol': { path: 'evol.jsonl' },
        metamath: { source: 'metamath' },
      }),
    );
    const counts = Object.fromEntries(recipe.sources.map((source) => [source.name, source.count!]));
    const { slimorca, magicoder, metamath } = mixPresets[name];
    expect(counts['slimorca']).toBe(slimorca);
    expect(counts['magicoder-oss']! + counts['magicoder-evol']!).toBe(magicoder);
    expect(counts['metamath']).toBe(metamath);
    expect(Object.values(counts).reduce((sum, count) => sum + count)).toBe(
      name === 'idae-500k' ? 500_000 : 720_000,
    );
  });
});

test('the published JSON Schema is that of the code: caravan recipe schema > docs/recipe.schema.json', () => {
  const published = readFileSync(join(import.meta.dirname, '../../../docs/recipe.schema.json'), 'utf8');
  expect(JSON.parse(published)).toEqual(JSON.parse(JSON.stringify(recipeJsonSchema())));
  const { properties } = recipeJsonSchema() as { properties: Record<string, { description?: string }> };
  for (const [name, { description }] of Object.entries(properties))
    expect([name, description]).toEqual([name, expect.any(String)]);
});
