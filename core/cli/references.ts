import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { isHubReference, type HubAccess } from '../shared/hub/hubReference.ts';

/**
 * A model or mix as the user wrote it: a folder (made absolute, since the host has another working directory) or a
 * name in the library, left as it is.
 */
export function resolveReference(cwd: string, reference: string): string {
  if (reference.startsWith('run:') || isHubReference(reference)) return reference;
  const path = resolve(cwd, reference);
  const looksLikePath = reference.includes('/') || reference.includes('\\') || reference.startsWith('.');
  return looksLikePath || existsSync(path) ? path : reference;
}

/** A file as the user wrote it, or a dataset of the hub, left as it is. */
export function resolveFile(cwd: string, file: string): string {
  return isHubReference(file) ? file : resolve(cwd, file);
}

/** How this shell reaches the hub, for a host that may have been started by another. */
export function hubAccess(env = process.env): { access: HubAccess } | Record<string, never> {
  const { HF_ENDPOINT: endpoint, HF_TOKEN: token } = env;
  if (!endpoint && !token) return {};
  return { access: { ...(endpoint && { endpoint }), ...(token && { token: token.trim() }) } };
}
