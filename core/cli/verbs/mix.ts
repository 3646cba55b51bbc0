import { dirname, resolve } from 'node:path';
import { recipeSchema } from '../../shared/dataset/recipe.ts';
import { formatCount } from '../../shared/format.ts';
import { followJob } from '../followJob.ts';
import { oneWord, text } from '../options.ts';
import { resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';
import { placeInFile, readYamlFile } from '../yamlFile.ts';

export const verb: Verb = {
  summary: 'Build a mix from a recipe: the same recipe over the same files gives the same bytes.',
  usage: 'mix recipe.yaml [--out DIR]',
  help: `--out DIR  folder for mix.parquet, manifest.json, rejects.parquet and token shards (default: below the home)`,
  options: { out: { type: 'string' } },
  async run(context) {
    const { options, output, cwd, connect, interrupted } = context;
    const file = resolve(cwd, oneWord(context, 'recipe'));
    const recipe = await readYamlFile(file, recipeSchema, 'bad_recipe');
    const baseDir = dirname(file);
    if (recipe.model !== undefined) recipe.model = resolveReference(baseDir, recipe.model);
    const out = text(options, 'out');
    const client = await connect();
    const job = await client
      .call('buildMix', {
        recipe,
        baseDir,
        ...(out !== undefined && { outDir: resolve(cwd, out) }),
      })
      .catch(async (error: unknown) => {
        throw await placeInFile(error, file);
      });
    const done = await followJob(client, job, output, interrupted).catch(async (error: unknown) => {
      throw await placeInFile(error, file);
    });
    const mix = await client.call('getMix', { id: done.subjectId ?? '' });
    output.document(mix);
    output.table(
      ['source', 'rows in', 'trained', 'held out', 'tokens', 'target tokens', 'set aside'],
      mix.sources.map((source) => [
        source.name,
        source.rowsIn,
        source.rows,
        source.validationRows,
        source.tokens,
        source.targetTokens,
        Object.entries(source.rejectedByReason)
          .map(([reason, count]) => `${formatCount(count)} ${reason}`)
          .join(', ') || 'none',
      ]),
    );
    output.line(`\n${mix.name}: ${formatCount(mix.rows)} rows in ${mix.dir}\ncontent ${mix.contentHash}`);
    return 0;
  },
};
