/**
 * The native files of an installed Caravan, held to what was shipped: an archive's own seal does not cover what lies
 * unpacked beside it. A checkout has no list, and nothing is checked there.
 */
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { CaravanError } from '../shared/contract/errors.ts';

/** Beside package.json: path relative to it, with slashes, to SHA-256 in hexadecimal. */
export const nativeFileList = 'native-files.json';

/** @throws `missing_dependency`, naming the first file that is absent or another */
export async function checkNativeFiles(appDir: string): Promise<void> {
  const list = readList(appDir);
  await Promise.all(
    Object.entries(list).map(async ([path, expected]) => {
      const file = realPath(join(appDir, path));
      const mend = 'Install Caravan again from a download whose checksum you have compared.';
      let found: string;
      try {
        found = await hashFile(file);
      } catch (error) {
        throw new CaravanError(
          'missing_dependency',
          `a native file is missing: ${(error as Error).message}`,
          {
            place: { file },
            mend,
          },
        );
      }
      if (found !== expected)
        throw new CaravanError(
          'missing_dependency',
          `a native file was changed since it was shipped: ${file}`,
          {
            place: { file },
            mend,
          },
        );
    }),
  );
}

/** Inside Electron's archive a file that lies unpacked has a real path beside it, which is the one that is loaded. */
function realPath(path: string): string {
  return path.replace(`${sep}app.asar${sep}`, `${sep}app.asar.unpacked${sep}`);
}

function readList(appDir: string): Record<string, string> {
  try {
    return JSON.parse(readFileSync(join(appDir, nativeFileList), 'utf8')) as Record<string, string>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
