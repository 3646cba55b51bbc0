import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { CaravanError } from '../shared/contract/errors.ts';
import { addedTokensSchema, tokenizerConfigSchema } from '../shared/model/tokenizerConfig.ts';
import { isGgufPath } from '../shared/model/modelPath.ts';
import type { AddonLoader, RequestParams, RequestResult } from './protocol.ts';

const idsSchema = z
  .union([z.number().int(), z.array(z.number().int())])
  .nullish()
  .transform((ids) => (ids == null ? [] : typeof ids === 'number' ? [ids] : ids));
/** config.json and generation_config.json. */
const specialIdsSchema = z.object({ bos_token_id: idsSchema, eos_token_id: idsSchema });

/**
 * What templates and chats need of a GGUF file's metadata or a model folder's tokenizer files. Of tokenizer.json, which can be large, only the
 * special tokens; all other files may be absent.
 * @throws `not_found` without tokenizer.json; `tokenizer_invalid` naming the file that is malformed.
 */
export async function readTokenizer(
  { dir }: RequestParams<'readTokenizer'>,
  loadAddon: AddonLoader,
): Promise<RequestResult<'readTokenizer'>> {
  if (isGgufPath(dir)) {
    const { stopIds, ...tokens } = await loadAddon().inspectGgufTokenizer(dir);
    return { tokens, stopIds: [...stopIds] };
  }
  const tokenizer = await readJson(join(dir, 'tokenizer.json'), addedTokensSchema);
  if (tokenizer === null)
    throw new CaravanError('not_found', 'the folder has no tokenizer.json', {
      place: { file: join(dir, 'tokenizer.json') },
      mend: 'Give a folder that holds tokenizer.json (and, for more than tokenising, config.json and *.safetensors).',
    });
  const config = await readJson(join(dir, 'tokenizer_config.json'), tokenizerConfigSchema);
  const map = await readJson(join(dir, 'special_tokens_map.json'), tokenizerConfigSchema);
  const generation = await readJson(join(dir, 'generation_config.json'), specialIdsSchema);
  const model = await readJson(join(dir, 'config.json'), specialIdsSchema);
  const template = await readText(join(dir, 'chat_template.jinja'));
  const byId = new Map(tokenizer.added_tokens.map(({ id, content }) => [id, content]));
  const idOf = new Map(tokenizer.added_tokens.map(({ id, content }) => [content, id]));
  // Where tokenizer_config.json is there, its silence means that the tokenizer has no such token.
  const fallback = (ids: number[] | undefined) => (config ? null : (byId.get(ids?.[0] ?? -1) ?? null));
  const bos = config?.bos_token ?? map?.bos_token ?? fallback(model?.bos_token_id);
  const eos = config?.eos_token ?? map?.eos_token ?? fallback(model?.eos_token_id);
  const eosId = eos === null ? undefined : idOf.get(eos);
  return {
    tokens: {
      bos,
      eos,
      specials: tokenizer.added_tokens.filter(({ special }) => special).map(({ content }) => content),
      chatTemplate: config?.chat_template ?? template,
    },
    stopIds: [
      ...new Set([
        ...(generation?.eos_token_id ?? []),
        ...(model?.eos_token_id ?? []),
        ...(eosId === undefined ? [] : [eosId]),
      ]),
    ],
  };
}

async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

async function readJson<S extends z.ZodType>(file: string, schema: S): Promise<z.infer<S> | null> {
  const text = await readText(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CaravanError('tokenizer_invalid', `not valid JSON: ${(error as Error).message}`, {
      place: { file },
      mend: 'Fetch the file again.',
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new CaravanError('tokenizer_invalid', issue.message, {
    place: { file, field: issue.path.join('.') },
    mend: 'Bring the file that belongs to this model.',
  });
}
