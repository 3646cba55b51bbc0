/** What a download would be: which commit, which files with which hashes, and what of them is here already. */
import { mkdir, readFile, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { datasetInfo, listFiles, modelInfo } from '@huggingface/hub';
import * as z from 'zod';
import { CaravanError } from '../shared/contract/errors.ts';
import {
  hubPlanSchema,
  isCommit,
  type HubKind,
  type HubPlan,
  type HubReference,
} from '../shared/hub/hubReference.ts';
import { checkPaths, partialEnding, recordName } from './checkPath.ts';
import { chooseFiles } from './chooseFiles.ts';
import { openHubSession, type HubSession } from './hubSession.ts';
import { parseEndpoint } from './redirectRules.ts';

export interface PlanRequest {
  kind: HubKind;
  reference: HubReference;
  endpoint: string | undefined;
  token: string | undefined;
  /** Folder of all downloads. */
  root: string;
}

export const defaultStallMs = 30_000;
const maxFiles = 200_000;

const infoSchema = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  gated: z.union([z.boolean(), z.string()]).nullish(),
});
const entrySchema = z.object({
  type: z.string(),
  path: z.string(),
  size: z
    .number()
    .int()
    .nonnegative()
    .max(2 ** 50),
  oid: z
    .string()
    .regex(/^[0-9a-f]{40}$/)
    .optional(),
  lfs: z
    .object({
      oid: z.string().regex(/^[0-9a-f]{64}$/),
      size: z
        .number()
        .int()
        .nonnegative()
        .max(2 ** 50),
    })
    .optional(),
});

/** What a folder of downloads says of itself: complete choices, by the pattern that chose them. */
export const folderRecordSchema = z.object({
  kind: z.string(),
  id: z.string(),
  commit: z.string(),
  choices: z.record(z.string(), hubPlanSchema.pick({ files: true, leftOut: true, gated: true })),
});
export type FolderRecord = z.infer<typeof folderRecordSchema>;

/** A choice of files as the key of its record. */
export function choiceKey(reference: HubReference): string {
  return reference.files ?? '(needed)';
}

export function folderOf(root: string, kind: HubKind, id: string, commit: string): string {
  return join(root, `${kind}s`, id.replace('/', '--'), commit);
}

export async function planDownload(
  { kind, reference, endpoint, token, root }: PlanRequest,
  signal: AbortSignal,
  stallMs = defaultStallMs,
): Promise<HubPlan> {
  const { id, revision } = reference;
  if (isCommit(revision)) {
    const known = await plannedBefore(root, kind, reference, endpoint);
    if (known) return known;
  }
  const session = openHubSession({ kind, id, revision, endpoint, token, signal, stallMs });
  const info = infoSchema.safeParse(await askInfo(session, kind, reference));
  if (!info.success || (isCommit(revision) && info.data.sha !== revision))
    throw new CaravanError('bad_file', `${session.base} names no commit for ${id}@${revision}`, {
      mend: 'Check HF_ENDPOINT: this is not how a hub answers.',
    });
  const commit = info.data.sha;
  const all: HubPlan['files'] = [];
  for await (const raw of listFiles({
    repo: { type: kind, name: id },
    revision: commit,
    recursive: true,
    hubUrl: session.base,
    fetch: session.fetch,
  })) {
    const entry = entrySchema.safeParse(raw);
    if (!entry.success) throw badList(session, id, JSON.stringify(raw)?.slice(0, 200) ?? 'nothing');
    const { type, path, size, oid, lfs } = entry.data;
    if (type !== 'file') continue;
    if (lfs) all.push({ path, size: lfs.size, hash: { kind: 'sha256', hex: lfs.oid } });
    else if (oid !== undefined) all.push({ path, size, hash: { kind: 'git', hex: oid } });
    else throw badList(session, id, `${path} without a hash`);
    if (all.length > maxFiles)
      throw new CaravanError('bad_file', `${id} lists more than ${maxFiles} files`, {
        mend: 'Choose another repository.',
      });
  }
  const { files, leftOut } = chooseFiles(kind, reference, all);
  checkPaths(id, files);
  const dir = folderOf(root, kind, id, commit);
  return measure({
    kind,
    origin: { ...reference, endpoint: session.base, commit },
    gated: info.data.gated !== false && info.data.gated != null,
    files: files.sort((a, b) => a.size - b.size || (a.path < b.path ? -1 : 1)),
    leftOut,
    dir,
  });
}

function badList(session: HubSession, id: string, what: string): CaravanError {
  return new CaravanError(
    'bad_file',
    `${session.base} lists a file of ${id} in a form that no hub has: ${what}`,
    {
      mend: 'Check HF_ENDPOINT.',
    },
  );
}

async function askInfo(session: HubSession, kind: HubKind, { id, revision }: HubReference): Promise<unknown> {
  const params = { name: id, revision, hubUrl: session.base, fetch: session.fetch };
  try {
    return kind === 'model'
      ? await modelInfo({ ...params, additionalFields: ['sha'] })
      : await datasetInfo({ ...params, additionalFields: ['sha'] });
  } catch (error) {
    if (error instanceof CaravanError) throw error;
    throw new CaravanError('bad_file', `${session.base} does not answer as a hub does`, {
      mend: 'Check HF_ENDPOINT.',
      cause: error,
    });
  }
}

/** A commit never changes: what was chosen of it once and is whole needs no network. */
async function plannedBefore(
  root: string,
  kind: HubKind,
  reference: HubReference,
  endpoint: string | undefined,
): Promise<HubPlan | null> {
  const dir = folderOf(root, kind, reference.id, reference.revision);
  const choice = (await readRecord(dir))?.choices[choiceKey(reference)];
  if (!choice) return null;
  const base = parseEndpoint(endpoint).href.replace(/\/+$/, '');
  const plan = await measure({
    kind,
    origin: { ...reference, endpoint: base, commit: reference.revision },
    dir,
    ...choice,
  });
  return plan.presentBytes === plan.bytes ? plan : null;
}

export async function readRecord(dir: string): Promise<FolderRecord | null> {
  const text = await readFile(join(dir, recordName), 'utf8').catch(() => null);
  if (text === null) return null;
  try {
    return folderRecordSchema.parse(JSON.parse(text));
  } catch {
    // Damaged: as if it were not there, and then it is written anew.
    return null;
  }
}

async function measure(plan: Omit<HubPlan, 'bytes' | 'presentBytes' | 'freeDiskBytes'>): Promise<HubPlan> {
  let presentBytes = 0;
  for (const { path, size } of plan.files) presentBytes += await presentOf(join(plan.dir, path), size);
  await mkdir(plan.dir, { recursive: true });
  const { bavail, bsize } = await statfs(plan.dir);
  return {
    ...plan,
    bytes: plan.files.reduce((sum, { size }) => sum + size, 0),
    presentBytes,
    freeDiskBytes: bavail * bsize,
  };
}

/** Bytes of a file that need not be downloaded again. */
async function presentOf(path: string, size: number): Promise<number> {
  const whole = await stat(path).catch(() => null);
  if (whole?.size === size) return size;
  const part = await stat(`${path}${partialEnding}`).catch(() => null);
  return part ? Math.min(part.size, size) : 0;
}
