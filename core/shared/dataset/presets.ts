/** The published mixes, as recipes to start from. */
import { refusalPhrases } from './cleaning.ts';
import type { recipeSchema } from './recipe.ts';
import type * as z from 'zod';

/** Their four sources, with the rows that are published and the name of the file. */
export const presetSources = {
  slimorca: { rows: 517_982, file: 'oo-labeled_correct.gpt4.sharegpt.jsonl' },
  'magicoder-oss': { rows: 75_197, file: 'data-oss_instruct-decontaminated.jsonl' },
  'magicoder-evol': { rows: 111_183, file: 'data-evol_instruct-decontaminated.jsonl' },
  metamath: { rows: 395_000, file: 'MetaMathQA-395K.json' },
} as const;
export type PresetSource = keyof typeof presetSources;

/** Rows of SlimOrca, of both Magicoder sets together, and of MetaMathQA (arXiv 2401.02731). */
export const mixPresets = {
  'idae-500k': { slimorca: 300_000, magicoder: 100_000, metamath: 100_000 },
  'idae-720k': { slimorca: 360_000, magicoder: 180_000, metamath: 180_000 },
} as const;
export type MixPreset = keyof typeof mixPresets;
export const mixPresetNames = Object.keys(mixPresets) as MixPreset[];

/**
 * The paper says "after filtration and sampling" and no more: what is filtered here is our choice, and is all in the recipe.
 * @param origin where each source comes from: a name in the library, or files
 */
export function presetRecipe(
  preset: MixPreset,
  origin: Record<PresetSource, { source: string } | { path: string }>,
): z.input<typeof recipeSchema> {
  const { slimorca, magicoder, metamath } = mixPresets[preset];
  const { 'magicoder-oss': oss, 'magicoder-evol': evol } = presetSources;
  const ossRows = Math.round((magicoder * oss.rows) / (oss.rows + evol.rows));
  return {
    name: preset,
    seed: 0,
    dedup: 'near',
    clean: [{ step: 'length', of: 'answer', min: 2 }],
    sources: [
      {
        name: 'slimorca',
        ...origin.slimorca,
        count: slimorca,
        clean: [{ step: 'refusals', phrases: [...refusalPhrases] }],
      },
      { name: 'magicoder-oss', ...origin['magicoder-oss'], count: ossRows },
      { name: 'magicoder-evol', ...origin['magicoder-evol'], count: magicoder - ossRows },
      { name: 'metamath', ...origin.metamath, count: metamath, stratify: { by: 'label' } },
    ],
    whenShort: 'fail',
    template: 'camelidae',
    seqLen: 2048,
  };
}
