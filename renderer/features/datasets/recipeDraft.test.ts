import { describe, expect, test } from 'vitest';
import { recipeSchema } from '../../../core/shared/dataset/recipe.ts';
import type { Source } from '../../../core/shared/dataset/source.ts';
import {
  addSource,
  amountOf,
  applyPreset,
  checkDraft,
  emptyRecipe,
  draftPresets,
  rowsBefore,
  withAmount,
} from './recipeDraft.ts';
import { readRecipeYaml, writeRecipeYaml } from './recipeYaml.ts';

const source = (name: string, rows: number, more: Partial<Source> = {}): Source => ({
  id: `id-${name}`,
  name,
  files: [],
  format: 'messages',
  notes: [],
  rowsIn: rows,
  rows,
  rejected: 0,
  rejectedByReason: {},
  labels: { '': rows },
  bytes: 0,
  contentHash: '',
  importedAt: 0,
  ...more,
});
const library = [
  source('slimorca', 518_000),
  source('oss-instruct', 75_000),
  source('evol-instruct', 111_000),
  source('metamath', 395_000, { labels: { GSM: 240_000, MATH: 155_000 } }),
];

test('a source is added under a name of its own', () => {
  const twice = addSource(addSource(emptyRecipe(), library[0]!), library[0]!);
  expect(twice.sources.map(({ name }) => name)).toEqual(['slimorca', 'slimorca-2']);
  expect(twice.sources.map(({ source: ref }) => ref)).toEqual(['slimorca', 'slimorca']);
});

test('an amount takes the place of the other kinds', () => {
  const counted = withAmount({ name: 'a', source: 'a', weight: 2 }, 'count', 10);
  expect(counted).toEqual({ name: 'a', source: 'a', count: 10 });
  expect(amountOf(counted)).toEqual({ kind: 'count', value: 10 });
  expect(withAmount(counted, 'all', null)).toEqual({ name: 'a', source: 'a' });
});

test('presets lay the paper’s counts over what there is', () => {
  for (const preset of draftPresets) {
    const { draft, missing } = applyPreset(emptyRecipe(), preset, library);
    expect(missing).toEqual([]);
    const total = Object.values(preset.counts).reduce((a, b) => a + b, 0);
    expect(draft.sources.reduce((sum, { count }) => sum + count!, 0)).toBe(total);
    expect(draft.sources.map(({ name }) => name)).toEqual([
      'slimorca',
      'oss-instruct',
      'evol-instruct',
      'metamath',
    ]);
    expect(recipeSchema.safeParse(draft).success).toBe(true);
  }
  expect(applyPreset(emptyRecipe(), draftPresets[0]!, library.slice(0, 1)).missing).toEqual(['code', 'math']);
});

describe('what is wrong is said by field', () => {
  test('nothing chosen yet', () => {
    expect(checkDraft(emptyRecipe()).problems.map(({ field, message }) => [field, message])).toEqual([
      ['name', 'the mix has no name yet'],
      ['sources', 'no source is chosen yet'],
    ]);
  });
  test('two amounts at once, a step without bounds', () => {
    const { problems } = checkDraft({
      name: 'x',
      sources: [{ name: 'a', source: 'a', count: 1, weight: 1 }],
      clean: [{ step: 'length' }],
    });
    expect(problems.map(({ field }) => field)).toEqual(expect.arrayContaining(['sources[0]', 'clean[0]']));
  });
  test('tokens without a model', () => {
    const { problems, recipe } = checkDraft({ name: 'x', sources: [{ name: 'a', source: 'a', tokens: 5 }] });
    expect(recipe).toBeNull();
    expect(problems[0]).toMatchObject({ field: 'sources[0].tokens' });
  });
});

describe('rows before cleaning', () => {
  const rows = (draft: object) =>
    rowsBefore(recipeSchema.parse({ name: 'x', ...draft }), library).shares.map((share) => share.rows);
  test('all, counts, labels, weights', () => {
    expect(rows({ sources: [{ name: 'a', source: 'metamath', labels: ['MATH'] }] })).toEqual([155_000]);
    expect(rows({ sources: [{ name: 'a', source: 'metamath', count: 999_999 }] })).toEqual([395_000]);
    expect(
      rows({
        sources: [
          { name: 'a', source: 'slimorca', weight: 3 },
          { name: 'b', source: 'oss-instruct', weight: 1 },
        ],
      }),
    ).toEqual([225_000, 75_000]);
  });
  test('files that are not imported yet cannot be counted', () => {
    expect(rows({ sources: [{ name: 'a', path: 'rows.jsonl' }] })).toEqual([null]);
  });
});

test('recipe.yaml comes back as it was, and without what goes without saying', () => {
  const draft = {
    name: 'blend',
    sources: [{ name: 'a', source: 'slimorca', count: 5 }],
    clean: [{ step: 'regex' as const, pattern: 'a: "b"', of: 'prompt' as const }],
    dedup: 'near' as const,
  };
  const text = writeRecipeYaml(draft);
  expect(text).not.toContain('format');
  expect(text).not.toContain('seed');
  const read = readRecipeYaml(text, 'recipe.yaml');
  expect(read).toEqual({ draft });
});

test('a recipe.yaml that is none is named with its line', () => {
  expect(readRecipeYaml('name: x\nsources: [', 'r.yaml')).toMatchObject({
    problem: { place: { file: 'r.yaml', line: 2 } },
  });
  expect(readRecipeYaml('name: x\nsources:\n  - name: a\n    source: s\nsedd: 4\n', 'r.yaml')).toMatchObject({
    problem: { message: "there is no field 'sedd'", place: { line: 5 } },
  });
  expect(readRecipeYaml('just words', 'r.yaml')).toMatchObject({
    problem: { message: 'the file holds no recipe' },
  });
});
