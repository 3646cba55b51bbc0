import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { recipeSchema } from '../shared/dataset/recipe.ts';
import { Output } from './Output.ts';
import type { VerbContext } from './Verb.ts';
import { verb } from './verbs/recipe.ts';
import { readYamlFile } from './yamlFile.ts';

const dir = mkdtempSync(join(tmpdir(), 'caravan-recipe-'));
afterAll(() => rmSync(dir, { recursive: true }));

const run = (words: string[], options: VerbContext['options'] = {}) =>
  verb.run({
    words,
    options,
    cwd: dir,
    output: new Output(true, { write: () => true } as never, { write: () => true } as never),
    connect: () => Promise.reject(new Error('no host is needed')),
    interrupted: new AbortController().signal,
  });

test('a preset is written whole, with its schema beside it, and never over a file', async () => {
  writeFileSync(join(dir, 'orca.jsonl'), '{}');
  const options = { preset: 'idae-720k', source: ['slimorca=orca.jsonl', 'metamath=math'], model: 'base' };
  expect(await run(['new'], options)).toBe(0);
  const file = join(dir, 'recipe.yaml');
  const text = readFileSync(file, 'utf8');
  expect(text).toMatch(/^# yaml-language-server: \$schema=\.\/recipe\.schema\.json\nname: idae-720k\n/);
  expect(text).toContain('- as an ai language model');
  expect(JSON.parse(readFileSync(join(dir, 'recipe.schema.json'), 'utf8'))).toMatchObject({
    title: 'Caravan recipe',
  });
  const recipe = await readYamlFile(file, recipeSchema, 'bad_recipe');
  expect(recipe.sources).toMatchObject([
    { name: 'slimorca', path: 'orca.jsonl', count: 360_000 },
    { name: 'magicoder-oss', path: 'data-oss_instruct-decontaminated.jsonl' },
    { name: 'magicoder-evol' },
    { name: 'metamath', source: 'math', count: 180_000 },
  ]);
  await expect(run(['new'], options)).rejects.toMatchObject({ code: 'bad_option', place: { file } });
  expect(await run(['check', 'recipe.yaml'])).toBe(0);
});

test.each([
  ['name: x\nsources:\n  - { name: a, source: a }\nclean:\n  - step: refusal\n', 5, 'clean.0.step'],
  [
    'name: x\nsources:\n  - { name: a, source: a }\nclean:\n  - step: length\n    min: few\n',
    6,
    'clean.0.min',
  ],
  [
    'name: x\nsources:\n  - { name: a, source: a }\ndecontaminate:\n  benchmarks:\n    - { file: x }\n',
    6,
    'decontaminate.benchmarks.0.path',
  ],
  ['name: x\nsources:\n  - { name: a, source: a }\nclean:\n  - { step: tokens, min: 3 }\n', 5, 'clean[0]'],
  ['name: x\nsize: { rows: 5 }\nsources:\n  - { name: a, source: a }\n', 4, 'sources[0]'],
  ['name: x\nsources:\n  - { name: a, source: a }\n  - { name: a, source: b }\n', 4, 'sources[1].name'],
])('what is wrong is named by line: %j', async (text, line, field) => {
  writeFileSync(join(dir, 'bad.yaml'), text);
  await expect(run(['check', 'bad.yaml'])).rejects.toMatchObject({
    code: 'bad_recipe',
    place: { line, field },
  });
});
