/**
 * What stands for a repository of a model hub wherever a path could stand: `hub:OWNER/NAME`, `@REVISION` behind it (a
 * branch, a tag or a commit), and `:FILES` behind that: which of its files, `*` for any part of a name and `**` across folders.
 */
import * as z from 'zod';
import { CaravanError } from '../contract/errors.ts';

export const hubKinds = ['model', 'dataset'] as const;
export type HubKind = (typeof hubKinds)[number];

export const hubReferenceSchema = z.object({
  /** `OWNER/NAME`; a few old repositories have a name alone. */
  id: z.string(),
  revision: z.string(),
  /** Which files; null: those that the kind needs. */
  files: z.string().nullable(),
});
export type HubReference = z.infer<typeof hubReferenceSchema>;

/** Where a model or source was downloaded from, kept with it. */
export const hubOriginSchema = hubReferenceSchema.extend({
  endpoint: z.string(),
  /** The commit that `revision` was when it was downloaded. */
  commit: z.string(),
});
export type HubOrigin = z.infer<typeof hubOriginSchema>;

/** How a call reaches the hub, where not as the host's environment says. Never kept, never logged. */
export const hubAccessSchema = z
  .object({ endpoint: z.string().max(2000).optional(), token: z.string().max(2000).optional() })
  .strict();
export type HubAccess = z.infer<typeof hubAccessSchema>;

/** What would be downloaded. */
export const hubPlanSchema = z.object({
  kind: z.enum(hubKinds),
  origin: hubOriginSchema,
  /** The owner lets in only who accepted terms. */
  gated: z.boolean(),
  files: z.array(
    z.object({
      path: z.string(),
      size: z.number().int(),
      /** Of a large file its SHA-256; of a small one git's SHA-1 of it as a blob. */
      hash: z.object({ kind: z.enum(['sha256', 'git']), hex: z.string() }),
    }),
  ),
  bytes: z.number(),
  /** Of these, what is here already. */
  presentBytes: z.number(),
  /** What stays there, in words. */
  leftOut: z.array(z.string()),
  freeDiskBytes: z.number(),
  /** Folder of the files. */
  dir: z.string(),
});
export type HubPlan = z.infer<typeof hubPlanSchema>;

export const defaultEndpoint = 'https://huggingface.co';
const prefix = 'hub:';
const namePart = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?$/;

export function isHubReference(text: string): boolean {
  return text.startsWith(prefix);
}

/** @throws `bad_option` saying what is wrong with it */
export function parseHubReference(text: string): HubReference {
  const body = isHubReference(text) ? text.slice(prefix.length) : text;
  const [, id = '', revision, files] = /^([^@:]*)(?:@([^:]*))?(?::(.*))?$/s.exec(body) ?? [];
  const parts = id.split('/');
  const wrong = (what: string): never => {
    throw new CaravanError('bad_option', `'${text.slice(0, 300)}' ${what}`, {
      mend: 'Write hub:OWNER/NAME, hub:OWNER/NAME@REVISION, or either with :FILES behind it.',
    });
  };
  if (parts.length > 2 || parts.some((part) => !isNamePart(part))) wrong('names no repository of a hub');
  if (revision !== undefined && !isRevision(revision)) wrong('names no revision behind the @');
  if (files === '' || (files !== undefined && files.length > 500)) wrong('names no files behind the colon');
  return { id, revision: revision ?? 'main', files: files ?? null };
}

export function formatHubReference({ id, revision, files }: HubReference): string {
  return `${prefix}${id}${revision === 'main' ? '' : `@${revision}`}${files === null ? '' : `:${files}`}`;
}

export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

function isNamePart(part: string): boolean {
  return part.length <= 96 && namePart.test(part) && !part.includes('..') && !part.includes('--');
}

/** Branches may have slashes; git itself has no `..` in a name. */
function isRevision(revision: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$/.test(revision) && !/\.\.|\/\/|\/$/.test(revision);
}
