/** A mix carried out for other programs, and two mixes beside each other. */
import * as z from 'zod';
import { templates } from './recipe.ts';
import { messageSchema } from './source.ts';

export const mixExportFormats = ['messages', 'sharegpt', 'alpaca', 'reference', 'parquet'] as const;
export type MixExportFormat = (typeof mixExportFormats)[number];

export const mixExportSchema = z.object({
  dir: z.string(),
  format: z.enum(mixExportFormats),
  /** Data files of the folder, with their rows; README.md and recipe.yaml stand beside them. */
  files: z.array(
    z.object({
      name: z.string(),
      split: z.enum(['train', 'validation']),
      rows: z.number().int(),
      bytes: z.number().int(),
    }),
  ),
  /** Rows that the format cannot hold (raw text has no prompt for Alpaca), by why. */
  leftOut: z.record(z.string(), z.number().int()),
});
export type MixExport = z.infer<typeof mixExportSchema>;

const exampleSchema = z.object({
  source: z.string(),
  sourceRow: z.number().int(),
  file: z.string(),
  line: z.number().int(),
  hash: z.string(),
  messages: z.array(messageSchema),
});

export const mixComparisonSchema = z.object({
  /** Fields of the recipe that differ, as `sources[0].count`; absent values are null. */
  recipe: z.array(z.object({ field: z.string(), from: z.unknown(), to: z.unknown() })),
  model: z.object({ from: z.string().nullable(), to: z.string().nullable() }).nullable(),
  template: z.object({ from: z.enum(templates).nullable(), to: z.enum(templates).nullable() }).nullable(),
  /** Distinct conversations by source: in both, in one alone, or in both but held out in only one. */
  sources: z.array(
    z.object({
      name: z.string(),
      both: z.number().int(),
      added: z.number().int(),
      removed: z.number().int(),
      changedSplit: z.number().int(),
    }),
  ),
  added: z.array(exampleSchema),
  removed: z.array(exampleSchema),
});
export type MixComparison = z.infer<typeof mixComparisonSchema>;

/** Paths at which two values differ, leaves alone. */
export function differences(
  from: unknown,
  to: unknown,
  field = '',
): { field: string; from: unknown; to: unknown }[] {
  if (isBranch(from) && isBranch(to) && Array.isArray(from) === Array.isArray(to)) {
    const keys = [...new Set([...Object.keys(from), ...Object.keys(to)])];
    return keys.flatMap((key) =>
      differences(
        (from as Record<string, unknown>)[key],
        (to as Record<string, unknown>)[key],
        Array.isArray(from) ? `${field}[${key}]` : field === '' ? key : `${field}.${key}`,
      ),
    );
  }
  return from === to ? [] : [{ field, from: from ?? null, to: to ?? null }];
}

function isBranch(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
