/** Real instruction rows (the IDAE sample and GSM8K), and a run over them. */
import { expect } from 'vitest';
import type { Mix } from '../../core/shared/dataset/recipe.ts';
import type { Source } from '../../core/shared/dataset/source.ts';
import type { Run } from '../../core/shared/run/run.ts';
import type { CaravanHome } from './runCaravan.ts';
import { testData } from './skip.ts';

/** The sources of a mix over them: IDAE's own labels, its two code sets as one. */
const sources = [
  { name: 'slimorca', source: 'idae-sample', labels: ['slimorca'] },
  { name: 'code', source: 'idae-sample', labels: ['osscode', 'evolcode'] },
  { name: 'metamath', source: 'idae-sample', labels: ['math'] },
  { name: 'gsm8k', source: 'gsm8k-train', count: 400 },
];

/** Rows in both files. */
const rowsIn = { 'idae-sample': 500, 'gsm8k-train': 7473 };

/** Imports both files, of which no row may be lost. */
export async function importRealRows(caravan: CaravanHome): Promise<void> {
  for (const [name, file] of [
    ['idae-sample', 'idae-sample.json'],
    ['gsm8k-train', 'gsm8k-train.jsonl'],
  ] as const) {
    const source = await caravan.json<Source>('import', testData(`data/${file}`));
    const rows = rowsIn[name];
    expect(source).toMatchObject({ name, rowsIn: rows, rows, rejected: 0 });
  }
}

/** Mixes the four sources for a model; every row of each file is in the mix, held out, or counted with its reason. */
export async function mixRealRows(
  caravan: CaravanHome,
  { name, model, seqLen, perSource }: { name: string; model: string; seqLen: number; perSource: number },
): Promise<Mix> {
  // JSON is YAML.
  const recipe = { name, seed: 5, model, seqLen, validation: { perSource }, sources };
  const mix = await caravan.json<Mix>('mix', caravan.write(`${name}.yaml`, JSON.stringify(recipe)));
  for (const [index, { rowsIn: seen, rows, validationRows, rejectedByReason }] of mix.sources.entries()) {
    const rejected = Object.values(rejectedByReason).reduce((sum, count) => sum + count, 0);
    expect(rows + validationRows + rejected).toBe(seen);
    expect(seen).toBe(rowsIn[sources[index]!.source as keyof typeof rowsIn]);
    expect(validationRows).toBe(perSource);
  }
  return mix;
}

/** Trains by PESC; held-out loss must fall on every source. @returns the losses, for the record */
export async function trainOnRealRows(
  caravan: CaravanHome,
  config: Record<string, unknown> & { name: string },
): Promise<Record<string, { before: number; after: number }>> {
  const run = await caravan.json<Run>(
    'train',
    caravan.write(`${config.name}-run.yaml`, JSON.stringify({ method: 'pesc', ...config })),
  );
  expect(run).toMatchObject({ state: 'completed', stepZeroDifference: 0 });
  const losses = Object.fromEntries(
    run.firstEvaluation!.bySource.map(({ source, loss }, index) => [
      source,
      { before: loss!, after: run.lastEvaluation!.bySource[index]!.loss! },
    ]),
  );
  expect(Object.keys(losses)).toEqual(sources.map(({ name }) => name));
  for (const [source, { before, after }] of Object.entries(losses))
    expect(after, source).toBeLessThan(before);
  return losses;
}
