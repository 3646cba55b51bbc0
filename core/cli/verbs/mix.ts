import { dirname, resolve } from 'node:path';
import type { Client } from '../../shared/contract/client.ts';
import type { ContaminationCount } from '../../shared/dataset/decontamination.ts';
import type { MixPreview } from '../../shared/dataset/preview.ts';
import { recipeSchema } from '../../shared/dataset/recipe.ts';
import { formatCount } from '../../shared/format.ts';
import { followJob } from '../followJob.ts';
import { flag, number, oneWord, text } from '../options.ts';
import type { Output } from '../Output.ts';
import { hubAccess, resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';
import { placeInFile, readYamlFile } from '../yamlFile.ts';

export const verb: Verb = {
  summary: 'Build a mix from a recipe: the same recipe over the same files gives the same bytes.',
  usage: 'mix recipe.yaml [--preview] [--matches N] [--out DIR]',
  help: `--preview    build nothing: what each step would leave out, with examples, and the composition
--matches N  also show the first N rows that hold a benchmark's items, beside these (default: 0)
--out DIR    folder for mix.parquet, manifest.json, rejects.parquet and token shards (default: below the home)`,
  options: { out: { type: 'string' }, preview: { type: 'boolean' }, matches: { type: 'string' } },
  async run(context) {
    const { options, output, cwd, connect, interrupted } = context;
    const file = resolve(cwd, oneWord(context, 'recipe'));
    const recipe = await readYamlFile(file, recipeSchema, 'bad_recipe');
    const baseDir = dirname(file);
    if (recipe.model !== undefined) recipe.model = resolveReference(baseDir, recipe.model);
    const out = text(options, 'out');
    const matches = number(options, 'matches') ?? 0;
    const client = await connect();
    const inFile = async (error: unknown) => {
      throw await placeInFile(error, file);
    };
    if (flag(options, 'preview')) {
      const job = await client.call('previewMix', { recipe, baseDir, ...hubAccess() }).catch(inFile);
      const done = await followJob(client, job, output, interrupted).catch(inFile);
      const preview = await client.call('readMixPreview', { id: done.subjectId ?? '' });
      output.document({ ...preview, matches: await readMatches(client, preview.id, matches) });
      showPreview(preview, output);
      await showContamination(client, preview.id, preview.contamination, matches, output);
      for (const { field, message, mend } of preview.problems) {
        output.line(`\nnot to be built: ${field === null ? '' : `${field}: `}${message}`);
        if (mend !== null) output.line(`  ${mend}`);
      }
      return preview.problems.length > 0 ? 2 : 0;
    }
    const job = await client
      .call('buildMix', {
        recipe,
        baseDir,
        ...(out !== undefined && { outDir: resolve(cwd, out) }),
        ...hubAccess(),
      })
      .catch(inFile);
    const done = await followJob(client, job, output, interrupted).catch(inFile);
    const mix = await client.call('getMix', { id: done.subjectId ?? '' });
    output.document(matches > 0 ? { ...mix, matches: await readMatches(client, mix.id, matches) } : mix);
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
    await showContamination(client, mix.id, mix.contamination ?? [], matches, output);
    output.line(`\n${mix.name}: ${formatCount(mix.rows)} rows in ${mix.dir}\ncontent ${mix.contentHash}`);
    return 0;
  },
};

function readMatches(client: Client, id: string, limit: number) {
  return limit > 0
    ? client.call('readContamination', { id, limit: Math.min(limit, 1000) })
    : Promise.resolve([]);
}

function showPreview({ sources }: MixPreview, output: Output): void {
  output.table(
    [
      'source',
      'rows in',
      'left',
      'to train',
      'held out',
      'tokens',
      'trained tokens',
      'cut',
      'lost to seqLen',
    ],
    sources.map(({ name, rowsIn, available, rows, validationRows, tokens }) => {
      const about = tokens && !tokens.exact ? '~' : '';
      return [
        name,
        rowsIn,
        available,
        rows,
        validationRows,
        tokens && `${about}${formatCount(tokens.tokens)}`,
        tokens && `${about}${formatCount(tokens.targetTokens)}`,
        tokens && `${tokens.cutRows}/${tokens.measuredRows}`,
        tokens && `${tokens.emptyRows}/${tokens.measuredRows}`,
      ];
    }),
  );
  for (const { name, steps } of sources) {
    output.line(`\n${name}`);
    for (const { step, title, reason, rejected, examples } of steps) {
      output.line(
        `  ${step}: ${title}: ${rejected === 0 ? 'none left out' : `${formatCount(rejected)} ${reason}`}`,
      );
      for (const { file, line, detail, answer } of step === 'draw' ? [] : examples.slice(0, 2))
        output.line(`    ${file}:${line}: ${detail}${answer === '' ? '' : `: ${oneLine(answer, 80)}`}`);
    }
  }
}

async function showContamination(
  client: Client,
  id: string,
  counts: readonly ContaminationCount[],
  matches: number,
  output: Output,
): Promise<void> {
  if (counts.length === 0) return;
  output.line();
  output.table(
    ['benchmark', 'format', 'split', 'items', 'found', 'rows that hold them', ''],
    counts.map(({ name, format, split, items, itemsFound, rows, shortItems }) => [
      name,
      format,
      split,
      items,
      itemsFound,
      rows,
      shortItems > 0 ? `${shortItems} too short for n-grams: sought as a whole` : '',
    ]),
  );
  for (const match of await readMatches(client, id, matches)) {
    const { benchmark, split, item, itemPart, rowPart, source, file, line, kind, words, coverage } = match;
    output.line(
      `\n${file}:${line} (${source}), ${rowPart}: ${kind === 'exact' ? 'equals' : `${words} words of`} the ${itemPart} of ${benchmark} ` +
        `${split} item ${item}, ${Math.round(coverage * 100)} % of it${match.dropped ? '' : '; kept'}`,
    );
    output.line(`  row:  ${marked(match.rowText, match.rowSpans)}`);
    output.line(`  item: ${marked(match.itemText, match.itemSpans)}`);
  }
}

/** The overlap in brackets, with a little of what stands around it. */
function marked(text: string, spans: readonly [number, number][]): string {
  const from = Math.max(0, (spans[0]?.[0] ?? 0) - 40);
  const to = Math.min(text.length, (spans[0]?.[1] ?? 0) + 240);
  let shown = '';
  let at = from;
  for (const [begin, end] of spans) {
    if (begin >= to) break;
    shown += `${text.slice(at, begin)}[${text.slice(begin, Math.min(end, to))}]`;
    at = Math.min(end, to);
  }
  return oneLine(`${from > 0 ? '…' : ''}${shown}${text.slice(at, to)}${to < text.length ? '…' : ''}`, 400);
}

function oneLine(text: string, limit: number): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > limit ? `${line.slice(0, limit)}…` : line;
}
