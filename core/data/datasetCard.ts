import type { MixExport, MixExportFormat } from '../shared/dataset/mixExport.ts';
import type { Mix } from '../shared/dataset/recipe.ts';

/** README.md of an exported mix, in the form that the Hugging Face hub reads. */
export function datasetCard(
  mix: Omit<Mix, 'id' | 'builtAt'>,
  format: MixExportFormat,
  files: MixExport['files'],
  leftOut: MixExport['leftOut'],
  recipe: string,
): string {
  const count = (value: number | null) => (value === null ? '' : value.toLocaleString('en'));
  const table = (header: string[], rows: string[][]) =>
    [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  const tokenized = mix.tokens !== null;
  const splits = files.map(({ name, split }) => `      - split: ${split}\n        path: ${name}`);
  const composition = table(
    [
      'source',
      'rows in',
      'rows',
      'held out',
      ...(tokenized ? ['tokens', 'trained tokens'] : []),
      'set aside',
    ],
    mix.sources.map((source) => [
      source.name,
      count(source.rowsIn),
      count(source.rows),
      count(source.validationRows),
      ...(tokenized ? [count(source.tokens), count(source.targetTokens)] : []),
      Object.entries(source.rejectedByReason)
        .map(([reason, rows]) => `${count(rows)} ${reason}`)
        .join(', ') || 'none',
    ]),
  );
  const contamination = (mix.contamination ?? []).map(({ name, split, items, itemsFound, rows }) => [
    name,
    split,
    count(items),
    count(itemsFound),
    count(rows),
  ]);
  return `---
configs:
  - config_name: default
    data_files:
${splits.join('\n')}
---

# ${mix.name}

An instruction mix built by Caravan: ${count(mix.rows)} rows to train on${mix.validationRows > 0 ? `, ${count(mix.validationRows)} held out` : ''}${tokenized ? `; ${count(mix.tokens)} tokens for ${mix.model}, ${count(mix.targetTokens)} of them trained` : ''}.
The licences and terms of the sources hold for their rows.

## Composition

${composition}

## Files

Format: ${format}.

${table(
  ['file', 'split', 'rows', 'bytes'],
  files.map(({ name, split, rows, bytes }) => [name, split, count(rows), count(bytes)]),
)}
${Object.entries(leftOut)
  .map(([why, rows]) => `\n${count(rows)} rows are not in these files: ${why}.\n`)
  .join('')}${
    contamination.length > 0
      ? `
## Benchmarks

Rows that hold items of a test split were left out; overlap with train splits ${mix.recipe.decontaminate?.onTrain === 'drop' ? 'too' : 'was kept'}.

${table(['benchmark', 'split', 'items', 'items found', 'rows'], contamination)}
`
      : ''
  }
## Recipe

The same recipe over the same files gives this mix again, byte for byte (content ${mix.contentHash}).

\`\`\`yaml
${recipe.trimEnd()}
\`\`\`
`;
}
