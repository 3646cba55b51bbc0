import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { stringify } from 'yaml';
import { CaravanError } from '../../shared/contract/errors.ts';
import {
  mixPresetNames,
  presetRecipe,
  presetSources,
  type PresetSource,
} from '../../shared/dataset/presets.ts';
import { recipeProblems, recipeSchema } from '../../shared/dataset/recipe.ts';
import { recipeJsonSchema } from '../../shared/dataset/recipeJsonSchema.ts';
import { choice, list, text } from '../options.ts';
import type { Verb, VerbContext } from '../Verb.ts';
import { placeInFile, readYamlFile } from '../yamlFile.ts';

const schemaFile = 'recipe.schema.json';
const sourceNames = Object.keys(presetSources) as PresetSource[];

export const verb: Verb = {
  summary: 'Start a recipe from a published mix, check one, or print its schema for editors.',
  usage:
    'recipe new --preset P [--source NAME=REF…] [--model M] [--out FILE] | recipe check FILE | recipe schema',
  help: `new     writes a recipe (default: recipe.yaml) and, beside it, ${schemaFile}, by which editors complete and check it
check   names file, line and field of what is wrong, without reading any row
schema  prints the JSON Schema

--preset P         ${mixPresetNames.join(' or ')}
--source NAME=REF  where a source comes from: a name in the library or a file. NAME is ${sourceNames.join(', ')};
                   by default the publisher's file beside the recipe
--model M          for whom to tokenise
--out FILE         the recipe to write; a file that is there is never overwritten`,
  options: {
    preset: { type: 'string' },
    source: { type: 'string', multiple: true },
    model: { type: 'string' },
    out: { type: 'string' },
  },
  async run(context) {
    const [what, ...more] = context.words;
    if (what === 'schema') {
      process.stdout.write(`${JSON.stringify(recipeJsonSchema(), null, 2)}\n`);
      return 0;
    }
    if (what === 'new' && more.length === 0) return writeRecipe(context);
    if (what === 'check' && more.length === 1) return checkRecipe(context, more[0]!);
    throw new CaravanError('bad_option', 'say new, check FILE or schema');
  },
};

async function writeRecipe({ options, output, cwd }: VerbContext): Promise<number> {
  const preset = choice(options, 'preset', mixPresetNames);
  if (preset === undefined)
    throw new CaravanError('bad_option', `--preset is missing: ${mixPresetNames.join(' or ')}`);
  const file = resolve(cwd, text(options, 'out') ?? 'recipe.yaml');
  if (existsSync(file))
    throw new CaravanError('bad_option', 'there is a file already', {
      place: { file },
      mend: 'Choose another with --out.',
    });
  const given = new Map<string, string>();
  for (const pair of list(options, 'source')) {
    const [name, ref] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    if (!pair.includes('=') || ref === '' || !(name in presetSources))
      throw new CaravanError(
        'bad_option',
        `--source ${pair} is not of the form NAME=REF, where NAME is ${sourceNames.join(', ')}`,
      );
    given.set(name, ref);
  }
  const origin = Object.fromEntries(
    sourceNames.map((name) => {
      const ref = given.get(name);
      if (ref === undefined) return [name, { path: presetSources[name].file }];
      const path = resolve(cwd, ref);
      return [
        name,
        existsSync(path) ? { path: relative(dirname(file), path).replaceAll('\\', '/') } : { source: ref },
      ];
    }),
  ) as Parameters<typeof presetRecipe>[1];
  const model = text(options, 'model');
  const recipe = { ...presetRecipe(preset, origin), ...(model !== undefined && { model }) };
  recipeSchema.parse(recipe);
  const header = `# yaml-language-server: $schema=./${schemaFile}\n`;
  await writeFile(file, header + stringify(recipe, { lineWidth: 110 }), { flag: 'wx' });
  await writeFile(join(dirname(file), schemaFile), `${JSON.stringify(recipeJsonSchema(), null, 2)}\n`);
  output.document({ file, recipe });
  output.line(`${file}\n  Next: caravan mix ${relative(cwd, file)} --preview`);
  return 0;
}

async function checkRecipe({ output, cwd }: VerbContext, word: string): Promise<number> {
  const file = resolve(cwd, word);
  const recipe = await readYamlFile(file, recipeSchema, 'bad_recipe');
  const [problem] = recipeProblems(recipe);
  if (problem)
    throw await placeInFile(
      new CaravanError('bad_recipe', problem.message, {
        place: { field: problem.field },
        mend: problem.mend,
      }),
      file,
    );
  output.document({ file, recipe });
  output.line(`${file}: in order: ${recipe.sources.length} sources`);
  return 0;
}
