/** What lies where a model is said to be, and how it comes into the home. */
import { mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import { isGgufPath } from '../../shared/model/modelPath.ts';

export interface ModelFile {
  name: string;
  bytes: number;
}

const carried = /\.(safetensors|onnx|onnx\.data|json|model|jinja|txt|md)$|^LICENSE/i;
/** Read where there is no safetensors. */
const torchWeights = /^pytorch_model.*\.bin$/;
/** Beside the files: names and a little air. */
const spareBytes = 64 * 2 ** 20;
const chunkBytes = 8 * 2 ** 20;

export async function kindOf(path: string): Promise<'file' | 'folder' | null> {
  try {
    return (await stat(path)).isDirectory() ? 'folder' : 'file';
  } catch {
    return null;
  }
}

/** The model that a path is meant for: of a folder's config.json or weights, the folder. */
export async function modelPlace(path: string): Promise<string> {
  if (isGgufPath(path) || (await kindOf(path)) !== 'file') return path;
  const folder = dirname(path);
  return (await kindOf(join(folder, 'config.json'))) === 'file' ? folder : path;
}

/** Weights, configuration, tokenizer and papers of a folder, or the GGUF file itself. */
export async function modelFiles(place: string): Promise<ModelFile[]> {
  const names = isGgufPath(place) ? [] : await readdir(place);
  const isTorch = !names.some((name) => name.endsWith('.safetensors'));
  const paths = isGgufPath(place)
    ? [place]
    : names
        .filter((name) => carried.test(name) || (isTorch && torchWeights.test(name)))
        .map((name) => join(place, name));
  const found = await Promise.all(
    paths.map(async (path) => {
      const info = await stat(path);
      return info.isFile() ? [{ name: basename(path), bytes: info.size }] : [];
    }),
  );
  return found.flat().sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
}

export function sumBytes(files: readonly ModelFile[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

export async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

/** @throws `disk_full` before a byte is written */
function checkRoom(bytes: number, free: number, dir: string): void {
  if (bytes + spareBytes <= free) return;
  throw new CaravanError(
    'disk_full',
    `a copy takes ${formatBytes(bytes)} and the disk of the home has ${formatBytes(free)} left`,
    {
      place: { file: dir },
      mend: 'Free some space, or link the model where it lies (without a copy).',
    },
  );
}

/**
 * Copies a model beside its new place and moves it there when it is whole.
 * @param into a folder that is not there yet
 * @returns what stands for the model there: the folder, or the GGUF file in it
 */
export async function copyModel(
  place: string,
  into: string,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const files = await modelFiles(place);
  const total = sumBytes(files);
  await mkdir(dirname(into), { recursive: true });
  checkRoom(total, await freeBytes(dirname(into)), dirname(into));
  const partial = join(dirname(into), `.${basename(into)}.partial`);
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial);
  const from = isGgufPath(place) ? dirname(place) : place;
  let done = 0;
  try {
    for (const { name } of files)
      await copyFile(join(from, name), join(partial, name), (bytes) => {
        if (signal.aborted) throw new CaravanError('cancelled', 'the copy was cancelled');
        onProgress((done += bytes), total);
      });
    await rename(partial, into);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
  return isGgufPath(place) ? join(into, basename(place)) : into;
}

/** Part by part, so that it can be told and cancelled. */
async function copyFile(from: string, to: string, onBytes: (bytes: number) => void): Promise<void> {
  const source = await open(from, 'r');
  try {
    const target = await open(to, 'wx');
    try {
      const buffer = Buffer.allocUnsafe(chunkBytes);
      for (;;) {
        const { bytesRead } = await source.read(buffer, 0, chunkBytes);
        if (bytesRead === 0) break;
        for (let at = 0; at < bytesRead;) at += (await target.write(buffer, at, bytesRead - at)).bytesWritten;
        onBytes(bytesRead);
      }
      await target.sync();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** What a host that was ended in the midst of a copy left. */
export async function removePartial(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  const partial = names.filter((name) => name.startsWith('.') && name.endsWith('.partial'));
  await Promise.all(partial.map((name) => rm(join(dir, name), { recursive: true, force: true })));
}
