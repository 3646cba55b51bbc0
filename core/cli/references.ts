import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * A model or mix as the user wrote it: a folder (made absolute, since the host has another working directory) or a
 * name in the library, left as it is.
 */
export function resolveReference(cwd: string, reference: string): string {
  if (reference.startsWith('run:')) return reference;
  const path = resolve(cwd, reference);
  const looksLikePath = reference.includes('/') || reference.includes('\\') || reference.startsWith('.');
  return looksLikePath || existsSync(path) ? path : reference;
}
