import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { CaravanError } from '../../shared/contract/errors.ts';
import { mixSchema, recipeSchema, type Mix } from '../../shared/dataset/recipe.ts';
import type { FoundMix } from './datasetTypes.ts';

/** manifest.json as the data process writes it. */
const manifestSchema = z.object({
  format: z.literal('caravan-mix-1'),
  recipe: recipeSchema,
  tokenizer: z.object({ model: z.string(), hash: z.string() }).nullable(),
  counts: mixSchema.pick({
    rows: true,
    validationRows: true,
    tokens: true,
    targetTokens: true,
    sources: true,
  }),
  contamination: mixSchema.shape.contamination,
  files: z.record(z.string(), z.string()),
});

/**
 * Reads a mix from its folder alone. `known` is its record in the library.
 * @throws `not_found` where there is no manifest; `bad_file` where it is none of ours.
 */
export async function readMixFolder(dir: string, known: Mix | null): Promise<FoundMix> {
  const file = join(dir, 'manifest.json');
  let text: string;
  let builtAt: number;
  try {
    text = await readFile(file, 'utf8');
    builtAt = Math.round((await stat(file)).mtimeMs);
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    throw new CaravanError(
      'not_found',
      known ? `the folder of mix '${known.name}' is gone` : 'the folder holds no mix',
      {
        place: { file },
        mend: 'Build it: caravan mix recipe.yaml --out DIR.',
      },
    );
  }
  const parsed = manifestSchema.safeParse(parseJson(text, file));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new CaravanError('bad_file', `this is no mix's manifest: ${issue.message}`, {
      place: { file, field: issue.path.join('.') },
      mend: 'Build the mix again: caravan mix recipe.yaml --out DIR.',
    });
  }
  const { recipe, tokenizer, counts, contamination, files } = parsed.data;
  const shard = (split: string) => {
    const name = Object.keys(files).find((path) => path.endsWith(`/${split}.safetensors`));
    return name === undefined ? null : join(dir, name);
  };
  return {
    mix: {
      ...counts,
      ...(contamination && { contamination }),
      id: known?.id ?? dir,
      name: known?.name ?? basename(dir),
      dir,
      model: tokenizer?.model ?? null,
      template: tokenizer ? recipe.template : null,
      seqLen: tokenizer ? recipe.seqLen : null,
      contentHash: createHash('sha256').update(text).digest('hex'),
      recipe: known
        ? { ...recipe, ...(known.recipe.model !== undefined && { model: known.recipe.model }) }
        : recipe,
      builtAt: known?.builtAt ?? builtAt,
    },
    tokenizerHash: tokenizer?.hash ?? null,
    trainShard: shard('train'),
    validationShard: shard('validation'),
    files,
  };
}

/**
 * A mix replaces what its folder held: so that must have been a mix, or nothing.
 * @throws `bad_option`
 */
export async function checkReplaceable(dir: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw error;
    throw new CaravanError('bad_option', 'this is a file; a mix is a folder', {
      place: { file: dir, field: 'outDir' },
      mend: 'Choose another place with --out.',
    });
  }
  if (names.length === 0) return;
  const mix = await readMixFolder(dir, null).catch(() => null);
  if (mix) return;
  throw new CaravanError(
    'bad_option',
    'the folder holds other things than a mix, which building one would delete',
    {
      place: { file: dir, field: 'outDir' },
      mend: 'Choose a new or empty folder with --out.',
    },
  );
}

/** Nothing of the user's is replaced by an export. @throws `bad_option` */
export async function checkEmpty(dir: string): Promise<void> {
  const names = await readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw new CaravanError('bad_option', 'this is no folder that can be written to', {
      place: { file: dir, field: 'outDir' },
      mend: 'Choose another with --out.',
      cause: error,
    });
  });
  if (names.length > 0)
    throw new CaravanError('bad_option', 'the folder is not empty', {
      place: { file: dir, field: 'outDir' },
      mend: 'Choose a new or empty folder with --out.',
    });
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new CaravanError('bad_file', `not valid JSON: ${(error as Error).message}`, {
      place: { file },
      mend: 'Build the mix again: caravan mix recipe.yaml --out DIR.',
    });
  }
}
