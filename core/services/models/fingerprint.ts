import { createHash } from 'node:crypto';
import { stat, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { isGgufPath } from '../../shared/model/modelPath.ts';

/** Names, sizes and times of files in a few words: what changes when they do, without reading them. */
export async function fingerprintFiles(files: readonly string[]): Promise<string> {
  const parts = await Promise.all(
    files.map(async (file) => {
      const info = await stat(file);
      return `${basename(file)} ${info.size} ${info.mtimeMs}`;
    }),
  );
  return createHash('sha256').update(parts.join('\n')).digest('hex');
}

/** The files that make a model what it is: those of its folder, or the GGUF file itself. */
export async function weightFiles(dir: string): Promise<string[]> {
  if (isGgufPath(dir)) return [dir];
  const names = await readdir(dir);
  return names
    .filter((name) => /\.(safetensors|bin|index\.json|onnx|onnx\.data)$/.test(name) || name === 'config.json')
    .sort()
    .map((name) => join(dir, name));
}
