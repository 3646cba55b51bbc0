import { resolve } from 'node:path';
import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { mixExportFormats } from '../../shared/dataset/mixExport.ts';
import type { Mix } from '../../shared/dataset/recipe.ts';
import { formatCount } from '../../shared/format.ts';
import { followJob } from '../followJob.ts';
import { choice, required } from '../options.ts';
import type { Output } from '../Output.ts';
import { resolveReference } from '../references.ts';
import type { Verb, VerbContext } from '../Verb.ts';

export const verb: Verb = {
  summary: 'The mixes of the library: list, show, export for other programs, compare two.',
  usage: 'mixes [list | show MIX | export MIX --format F --out DIR | compare MIX MIX]',
  help: `MIX is a name in the library, an id or (compare) a folder.
export   writes train and validation, a dataset card (README.md) and recipe.yaml to a new or empty folder
compare  what the second has and the first has not: recipe, and rows by source

--format F  ${mixExportFormats.join(', ')}; reference is the JSON that the paper's code trains on
--out DIR   the folder`,
  options: { format: { type: 'string' }, out: { type: 'string' } },
  async run(context) {
    const { words, output, cwd, connect } = context;
    const [action = 'list', ...refs] = words;
    const client = await connect();
    if (action === 'list' && refs.length === 0) await listMixes(client, output);
    else if (action === 'show' && refs.length === 1) {
      const mix = await client.call('getMix', { id: refs[0]! });
      output.document(mix);
      showMix(mix, output);
    } else if (action === 'export' && refs.length === 1) await exportMix(client, refs[0]!, context);
    else if (action === 'compare' && refs.length === 2) {
      const [from, to] = refs.map((ref) => resolveReference(cwd, ref)) as [string, string];
      await compareMixes(client, from, to, output);
    } else throw new CaravanError('bad_option', 'say list, show MIX, export MIX or compare MIX MIX');
    return 0;
  },
};

async function listMixes(client: Client, output: Output): Promise<void> {
  const mixes = await client.call('listMixes', {});
  output.document(mixes);
  if (mixes.length === 0) {
    output.line('No mixes yet: `caravan mix recipe.yaml` builds one.');
    return;
  }
  output.table(
    ['name', 'rows', 'held out', 'tokens', 'model', 'folder'],
    mixes.map((mix) => [mix.name, mix.rows, mix.validationRows, mix.tokens, mix.model, mix.dir]),
  );
}

function showMix(mix: Mix, output: Output): void {
  output.line(
    `${mix.name} (${mix.id}): ${formatCount(mix.rows)} rows in ${mix.dir}\ncontent ${mix.contentHash}`,
  );
  output.table(
    ['source', 'rows in', 'trained', 'held out', 'tokens', 'target tokens'],
    mix.sources.map(({ name, rowsIn, rows, validationRows, tokens, targetTokens }) => [
      name,
      rowsIn,
      rows,
      validationRows,
      tokens,
      targetTokens,
    ]),
  );
}

async function exportMix(
  client: Client,
  id: string,
  { options, output, cwd, interrupted }: VerbContext,
): Promise<void> {
  const format = choice(options, 'format', mixExportFormats);
  if (format === undefined)
    throw new CaravanError('bad_option', `--format is missing: ${mixExportFormats.join(', ')}`);
  const outDir = resolve(cwd, required(options, 'out'));
  const job = await client.call('exportMix', { id, format, outDir });
  await followJob(client, job, output, interrupted);
  const { lines } = await client.call('getJobLog', { id: job.id });
  output.document({ dir: outDir, format, lines });
  output.line(outDir);
  for (const line of lines) output.line(`  ${line}`);
}

async function compareMixes(client: Client, from: string, to: string, output: Output): Promise<void> {
  const comparison = await client.call('compareMixes', { from, to });
  output.document(comparison);
  const { recipe, model, template, sources } = comparison;
  for (const { field, from: before, to: after } of recipe)
    output.line(`recipe ${field}: ${JSON.stringify(before)} -> ${JSON.stringify(after)}`);
  if (model) output.line(`model: ${model.from} -> ${model.to}`);
  if (template) output.line(`template: ${template.from} -> ${template.to}`);
  if (recipe.length === 0 && !model && !template) output.line('the same recipe');
  output.table(
    ['source', 'in both', 'added', 'removed', 'held out in one alone'],
    sources.map(({ name, both, added, removed, changedSplit }) => [name, both, added, removed, changedSplit]),
  );
}
