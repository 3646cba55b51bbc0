import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lockFolder } from './HostLock.ts';

/** sockaddr_un holds 104 bytes on macOS and 108 on Linux, the closing zero included. */
const longestSocketPath = 103;

/**
 * Where a host may listen, best first: inside its home, which its owner alone may enter; else in a folder of the user's
 * own, where the home's path is too long or its file system knows no sockets. On Windows a named pipe. Each ends in the
 * lock's id, so that no address is used twice and a dead host's socket is never in the way.
 */
export function localAddresses(
  home: string,
  lockId: string,
  platform: NodeJS.Platform = process.platform,
  env: Record<string, string | undefined> = process.env,
): string[] {
  const key = `${createHash('sha256').update(home).digest('hex').slice(0, 12)}-${lockId}`;
  if (platform === 'win32') return [`\\\\.\\pipe\\caravan-${key}`];
  const runtime = env['XDG_RUNTIME_DIR'];
  return [
    join(lockFolder(home), `${lockId}.sock`),
    ...(runtime ? [join(runtime, 'caravan', `${key}.sock`)] : []),
    join(tmpdir(), `caravan-${process.getuid?.() ?? 'user'}`, `${key}.sock`),
    join('/tmp', `caravan-${process.getuid?.() ?? 'user'}`, `${key}.sock`),
  ].filter((path) => Buffer.byteLength(path) <= longestSocketPath);
}

/** Makes the folder of a socket; false where it is not this user's alone, as one planted in /tmp would be. */
export function prepareSocketFolder(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const stat = lstatSync(folder);
    return stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o077) === 0;
  } catch {
    return false;
  }
}
