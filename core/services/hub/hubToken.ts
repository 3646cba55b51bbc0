/** Tokens of a hub: where they come from, and to which hub each may go. */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { defaultEndpoint } from '../../shared/hub/hubReference.ts';

export interface FoundToken {
  token: string;
  from: 'environment' | 'home' | 'huggingface';
}

export interface TokenPlaces {
  env: Record<string, string | undefined>;
  /** Of `setHubToken`. */
  file: string;
  userHome: string;
}

const keptSchema = z.object({ endpoint: z.string(), token: z.string().min(1) });

export function normalEndpoint(text: string | undefined): string {
  const given = text?.trim();
  return (given === undefined || given === '' ? defaultEndpoint : given).replace(/\/+$/, '');
}

/** The token for a hub: what belongs to another is not sent there. */
export async function findToken(endpoint: string, places: TokenPlaces): Promise<FoundToken | null> {
  const { env, file, userHome } = places;
  const given = (env['HF_TOKEN'] ?? env['HUGGING_FACE_HUB_TOKEN'])?.trim();
  if (given && endpoint === normalEndpoint(env['HF_ENDPOINT'])) return { token: given, from: 'environment' };
  const kept = await readKept(file);
  if (kept?.endpoint === endpoint) return { token: kept.token, from: 'home' };
  if (endpoint !== defaultEndpoint) return null;
  const theirs =
    env['HF_TOKEN_PATH'] ?? join(env['HF_HOME'] ?? join(userHome, '.cache', 'huggingface'), 'token');
  const token = (await readFile(theirs, 'utf8').catch(() => '')).trim();
  return token === '' ? null : { token, from: 'huggingface' };
}

/** A file that others can read is none. */
async function readKept(file: string): Promise<z.infer<typeof keptSchema> | null> {
  try {
    if (process.platform !== 'win32' && ((await stat(file)).mode & 0o077) !== 0) return null;
    return keptSchema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return null;
  }
}

export async function keepToken(file: string, endpoint: string, token: string | null): Promise<void> {
  if (token === null) {
    await rm(file, { force: true });
    return;
  }
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`;
  await writeFile(partial, JSON.stringify({ endpoint, token }), { flag: 'wx', mode: 0o600 });
  await rename(partial, file);
}
