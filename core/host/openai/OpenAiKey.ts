/**
 * Whether the endpoint is open, and the key that opens it. Kept is a hash alone, in a file that its owner alone may read:
 * a key is told once and cannot be read back.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import * as z from 'zod';

const keptSchema = z.object({ enabled: z.boolean(), keyHash: z.string().regex(/^[0-9a-f]{64}$/) });
type Kept = z.infer<typeof keptSchema>;

export class OpenAiKey {
  readonly #file: string;
  #kept: Kept | null;

  constructor(file: string) {
    this.#file = file;
    this.#kept = read(file);
  }

  get isEnabled(): boolean {
    return this.#kept?.enabled ?? false;
  }

  get exists(): boolean {
    return this.#kept !== null;
  }

  /** @returns a key that was made: the first, or a new one, with which the old one ends */
  set(enabled: boolean, newKey: boolean): string | null {
    if (this.#kept === null && !enabled && !newKey) return null;
    const key = this.#kept === null || newKey ? `sk-caravan-${randomBytes(32).toString('base64url')}` : null;
    this.#kept = { enabled, keyHash: key === null ? this.#kept!.keyHash : hash(key).toString('hex') };
    mkdirSync(dirname(this.#file), { recursive: true, mode: 0o700 });
    const partial = `${this.#file}.${randomBytes(4).toString('hex')}.partial`;
    writeFileSync(partial, JSON.stringify(this.#kept), { flag: 'wx', mode: 0o600 });
    renameSync(partial, this.#file);
    return key;
  }

  admits(authorization: string | undefined): boolean {
    const key = /^Bearer (\S+)$/i.exec(authorization ?? '')?.[1];
    return (
      this.#kept !== null &&
      key !== undefined &&
      timingSafeEqual(hash(key), Buffer.from(this.#kept.keyHash, 'hex'))
    );
  }
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A file that others could write or read opens nothing. */
function read(file: string): Kept | null {
  try {
    if (process.platform !== 'win32' && (statSync(file).mode & 0o077) !== 0) return null;
    return keptSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return null;
  }
}
