/** Downloads what was planned, file after file, each resumed where an earlier attempt ended and checked before it counts. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaravanError } from '../shared/contract/errors.ts';
import { formatBytes } from '../shared/format.ts';
import type { HubPlan } from '../shared/hub/hubReference.ts';
import { partialEnding, recordName } from './checkPath.ts';
import { openHubSession, piecesOf, type HubSession } from './hubSession.ts';
import { choiceKey, defaultStallMs, readRecord, type FolderRecord } from './planDownload.ts';

type HubFile = HubPlan['files'][number];

export interface DownloadOptions {
  signal: AbortSignal;
  report: (done: number, total: number) => void;
  stallMs?: number;
  /** Waits between attempts that brought nothing; after the last the download fails. */
  retryMs?: readonly number[];
}

/** What else the machine needs while this goes on. */
const spareBytes = 256 * 2 ** 20;
const defaultRetryMs = [500, 1000, 2000, 5000, 10_000];

export async function downloadFiles(
  plan: HubPlan,
  token: string | undefined,
  { signal, report, stallMs = defaultStallMs, retryMs = defaultRetryMs }: DownloadOptions,
): Promise<void> {
  const { kind, origin, dir } = plan;
  const missing = plan.bytes - plan.presentBytes;
  if (missing > 0 && missing + spareBytes > plan.freeDiskBytes)
    throw new CaravanError(
      'disk_full',
      `${origin.id} needs ${formatBytes(missing)} more on the disk, and ${formatBytes(plan.freeDiskBytes)} are free`,
      { place: { file: dir }, mend: 'Free some space, or set CARAVAN_HOME to a folder on a larger disk.' },
    );
  let session: HubSession | null = null;
  let arrived = plan.presentBytes;
  report(arrived, plan.bytes);
  for (const file of plan.files) {
    const path = join(dir, file.path);
    if ((await sizeOf(path)) === file.size) continue;
    session ??= openHubSession({ ...origin, kind, revision: origin.commit, token, signal, stallMs });
    await mkdir(dirname(path), { recursive: true });
    let last = Math.min((await sizeOf(`${path}${partialEnding}`)) ?? 0, file.size);
    await downloadFile(file, path, urlOf(session, plan, file.path), session, {
      signal,
      stallMs,
      retryMs,
      onBytes(bytes) {
        arrived += bytes - last;
        last = bytes;
        report(arrived, plan.bytes);
      },
    });
  }
  await writeRecord(plan);
}

function urlOf(session: HubSession, { kind, origin }: HubPlan, path: string): URL {
  const folder = kind === 'dataset' ? 'datasets/' : '';
  const encoded = path.split('/').map(encodeURIComponent).join('/');
  return new URL(`${session.base}/${folder}${origin.id}/resolve/${origin.commit}/${encoded}`);
}

interface FileOptions {
  signal: AbortSignal;
  stallMs: number;
  retryMs: readonly number[];
  onBytes: (bytes: number) => void;
}

async function downloadFile(
  file: HubFile,
  path: string,
  url: URL,
  session: HubSession,
  options: FileOptions,
): Promise<void> {
  const part = `${path}${partialEnding}`;
  const resumed = ((await sizeOf(part)) ?? 0) > 0;
  let hash = await transfer(file, part, url, session, options);
  if (hash !== file.hash.hex && resumed) {
    // What an earlier attempt left may have been damaged: once more, from nothing.
    await rm(part, { force: true });
    hash = await transfer(file, part, url, session, options);
  }
  if (hash !== file.hash.hex) {
    await rm(part, { force: true });
    throw new CaravanError('bad_file', `${file.path} has another hash than the hub says it has`, {
      place: { file: path },
      mend: 'It was thrown away. Try again; if it stays so, what lies between here and the hub changes files.',
    });
  }
  await rename(part, path);
}

/** Brings the whole file into `part`, over as many requests as it takes. @returns its hash */
async function transfer(
  file: HubFile,
  part: string,
  url: URL,
  session: HubSession,
  { signal, stallMs, retryMs, onBytes }: FileOptions,
): Promise<string> {
  const hash = startHash(file);
  let size = (await sizeOf(part)) ?? 0;
  if (size > file.size) {
    await rm(part);
    size = 0;
  }
  if (size > 0) for await (const piece of createReadStream(part)) hash.update(piece as Buffer);
  const handle = await open(part, 'a');
  try {
    let fruitless = 0;
    while (size < file.size) {
      const before = size;
      try {
        const response = await session.open(url, size > 0 ? { range: `bytes=${size}-` } : {}, signal);
        checkAnswer(response, file, size);
        for await (const piece of piecesOf(response, stallMs)) {
          if (signal.aborted) break;
          if (size + piece.byteLength > file.size)
            throw lies(file, `sends more than the ${file.size} bytes that it lists`);
          await handle.write(piece);
          hash.update(piece);
          size += piece.byteLength;
          onBytes(size);
        }
      } catch (error) {
        const known = CaravanError.from(error);
        if (known.code !== 'network_unavailable') throw full(error) ?? known;
        if (size === before && fruitless >= retryMs.length) throw known;
      }
      if (signal.aborted)
        throw new CaravanError('cancelled', 'the download was cancelled: what came is kept');
      if (size === file.size) break;
      // A connection that was cut after it brought something is no reason to wait.
      if (size > before) fruitless = 0;
      else if (fruitless >= retryMs.length) throw lies(file, `ends after ${size} of ${file.size} bytes`);
      else await sleep(retryMs[fruitless++], undefined, { signal }).catch(() => undefined);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  return hash.digest('hex');
}

/** What a server says of the bytes to come must be what was listed. */
function checkAnswer(response: Response, file: HubFile, from: number): void {
  const { status, headers } = response;
  const encoding = headers.get('content-encoding');
  if (encoding !== null && encoding !== 'identity') throw lies(file, `sends it as ${encoding.slice(0, 20)}`);
  if (status === 416) throw lies(file, `has no bytes behind ${from}`);
  if (from > 0 && status !== 206) throw lies(file, 'cannot go on in the midst of it');
  const length = headers.get('content-length');
  if (length !== null && Number(length) !== file.size - from)
    throw lies(file, `announces ${Number(length)} bytes instead of ${file.size - from}`);
  if (status !== 206) return;
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  const isRight =
    range !== null && Number(range[1]) === from && (range[3] === '*' || Number(range[3]) === file.size);
  if (!isRight) throw lies(file, 'answers with another part of it');
}

function lies({ path }: HubFile, what: string): CaravanError {
  return new CaravanError('bad_file', `the hub lists ${path} otherwise than it sends it: it ${what}`, {
    mend: 'Try again later, or check HF_ENDPOINT.',
  });
}

function full(error: unknown): CaravanError | null {
  return (error as NodeJS.ErrnoException).code === 'ENOSPC'
    ? new CaravanError('disk_full', 'the disk is full', {
        mend: 'Free some space and start it again: what was downloaded is kept, and it goes on from there.',
      })
    : null;
}

/** SHA-256 of the bytes, or SHA-1 as git names a blob. */
function startHash({ hash, size }: HubFile): Hash {
  return hash.kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

async function sizeOf(path: string): Promise<number | null> {
  return (await stat(path).catch(() => null))?.size ?? null;
}

async function writeRecord({ kind, origin, files, leftOut, gated, dir }: HubPlan): Promise<void> {
  const before = await readRecord(dir);
  const record: FolderRecord = {
    kind,
    id: origin.id,
    commit: origin.commit,
    choices: { ...before?.choices, [choiceKey(origin)]: { files, leftOut, gated } },
  };
  const path = join(dir, recordName);
  await writeFile(`${path}${partialEnding}`, `${JSON.stringify(record, null, 2)}\n`);
  await rename(`${path}${partialEnding}`, path);
}
