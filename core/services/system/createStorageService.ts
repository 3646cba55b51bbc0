import { readdir, rm, stat, statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { wallClock, type Clock } from '../../shared/clock.ts';
import type { Service } from '../../shared/contract/service.ts';
import { isEnded, type Job } from '../../shared/job/job.ts';
import type { CleanableKind, CleanUp, StorageKind } from '../../shared/storage.ts';

/** Something in the trash: its folder, and what deletes it with all that belongs to it. */
export interface Trashed {
  name: string;
  dir: string;
  remove(): Promise<void>;
}

export interface StorageDeps {
  home: string;
  jobs: () => readonly Job[];
  trash: () => Promise<Trashed[]>;
  clock?: Clock;
}

interface Found {
  what: string;
  bytes: number;
  /** Why it must stay; null where it may go. */
  why: string | null;
  remove: () => Promise<void>;
}

/** An index that was used so lately may be on somebody's screen. */
const restMs = 3_600_000;

/** How much of the disk a home takes, and the clean-up of what can be had again. */
export function createStorageService(deps: StorageDeps): Service<'readStorage' | 'cleanStorage'> {
  const { home, jobs, trash, clock = wallClock } = deps;
  const folders: Partial<Record<StorageKind, string>> = {
    runs: 'runs',
    sources: 'sources',
    mixes: 'mixes',
    models: 'models',
    hub: 'hub',
    looking: 'looking',
    previews: 'previews',
  };

  /** Entries of a folder whose jobs are over and that have rested. */
  async function rested(folder: string, kinds: readonly Job['kind'][]): Promise<Found[]> {
    const busy = jobs().some((job) => kinds.includes(job.kind) && !isEnded(job.state));
    const found: Found[] = [];
    for (const name of await readdir(join(home, folder)).catch(() => [])) {
      const path = join(home, folder, name);
      const { bytes, usedAt } = await measure(path);
      const why = busy
        ? 'a job works on such'
        : clock.now() - usedAt < restMs
          ? 'it was used within the last hour'
          : null;
      found.push({ what: path, bytes, why, remove: () => rm(path, { recursive: true, force: true }) });
    }
    return found;
  }

  async function backups(): Promise<Found[]> {
    const version = (name: string) => Number(/^caravan\.db\.bak-v(\d+)$/.exec(name)?.[1] ?? NaN);
    const names = (await readdir(home)).filter((name) => !Number.isNaN(version(name)));
    const newest = Math.max(...names.map(version));
    return Promise.all(
      names.map(async (name) => ({
        what: join(home, name),
        bytes: (await measure(join(home, name))).bytes,
        why: version(name) === newest ? 'it is the newest copy' : null,
        remove: () => rm(join(home, name), { force: true }),
      })),
    );
  }

  const cleanable: Record<CleanableKind, () => Promise<Found[]>> = {
    looking: () => rested('looking', ['look', 'measure']),
    previews: () => rested('previews', ['preview']),
    backups,
    trash: async () =>
      Promise.all(
        (await trash()).map(async ({ name, dir, remove }) => ({
          what: `${name} (${dir})`,
          bytes: (await measure(dir)).bytes,
          why: null,
          remove,
        })),
      ),
  };

  async function bytesOf(kind: StorageKind, found: readonly Found[] | null): Promise<number> {
    const folder = folders[kind];
    if (folder !== undefined) return (await measure(join(home, folder))).bytes;
    if (found) return found.reduce((sum, { bytes }) => sum + bytes, 0);
    const names = (await readdir(home)).filter((name) =>
      kind === 'database' ? /^caravan\.db(-wal|-shm|\.reserve)?$/.test(name) : name.endsWith('.log'),
    );
    const sizes = await Promise.all(names.map((name) => measure(join(home, name))));
    return sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  return {
    handlers: {
      async readStorage() {
        const kinds: StorageKind[] = [
          'runs',
          'sources',
          'mixes',
          'models',
          'hub',
          'looking',
          'previews',
          'trash',
          'backups',
          'database',
          'logs',
        ];
        const shares = [];
        for (const kind of kinds) {
          const found = kind in cleanable ? await cleanable[kind as CleanableKind]() : null;
          shares.push({
            kind,
            bytes: await bytesOf(kind, found),
            freeableBytes:
              found && found.reduce((sum, { bytes, why }) => sum + (why === null ? bytes : 0), 0),
          });
        }
        const { bavail, blocks, bsize } = await statfs(home);
        return { home, shares, disk: { totalBytes: blocks * bsize, freeBytes: bavail * bsize } };
      },
      async cleanStorage({ kinds, dryRun }) {
        const result: CleanUp = { freedBytes: 0, freed: [], kept: [] };
        for (const kind of new Set(kinds))
          for (const { what, bytes, why, remove } of await cleanable[kind]()) {
            let reason = why;
            if (reason === null && !dryRun)
              reason = await remove().then(
                () => null,
                (error: unknown) => (error as Error).message,
              );
            if (reason !== null) {
              result.kept.push({ kind, what, why: reason });
              continue;
            }
            result.freed.push({ kind, what, bytes });
            result.freedBytes += bytes;
          }
        return result;
      },
    },
    close: () => Promise.resolve(),
  };
}

/** What a file or folder takes, and when any of it was last read or written. Links are not followed. */
async function measure(path: string): Promise<{ bytes: number; usedAt: number }> {
  const info = await stat(path).catch(() => null);
  if (info === null) return { bytes: 0, usedAt: 0 };
  const usedAt = Math.max(info.mtimeMs, info.isDirectory() ? 0 : info.atimeMs);
  if (!info.isDirectory()) return { bytes: info.size, usedAt };
  let bytes = 0;
  let latest = usedAt;
  for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
    if (entry.isSymbolicLink()) continue;
    const part = await measure(join(path, basename(entry.name)));
    bytes += part.bytes;
    latest = Math.max(latest, part.usedAt);
  }
  return { bytes, usedAt: latest };
}
