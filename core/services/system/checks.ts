/** What `caravan doctor` looks at. Each check says what it found and, where something lacks, what to do. */
import { existsSync } from 'node:fs';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { delimiter, join } from 'node:path';
import type { BuildInfo } from '../../engine/AddonTypes.ts';
import type { CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';

export type Check = CallResult<'doctor'>['checks'][number];

const neededNode = 24;
const GiB = 2 ** 30;

export function checkNode(version = process.versions.node): Check {
  const ok = Number(version.split('.')[0]) >= neededNode;
  return {
    name: 'Node',
    status: ok ? 'ok' : 'missing',
    found: version,
    mend: ok ? null : `Run npm install, which brings Node ${neededNode}, and start Caravan with npx caravan.`,
  };
}

export function checkAddon(build: BuildInfo | CaravanError): Check[] {
  if (build instanceof CaravanError)
    return [
      {
        name: 'engine',
        status: 'missing',
        found: build.message,
        mend: build.mend ?? 'Build it: npm run build:native.',
      },
    ];
  const { used, built } = build.simd;
  const portable = !/avx|neon|sve/i.test(used);
  return [
    {
      name: 'engine',
      status: 'ok',
      found: `${build.version} (${build.buildId}), ${build.compiler}`,
      mend: null,
    },
    {
      name: 'vector instructions',
      status: portable ? 'warning' : 'ok',
      found: `${used} (built: ${built.join(', ')})`,
      mend: portable ? 'This processor has no AVX2: training on it is slow.' : null,
    },
  ];
}

export function checkProcessor(): Check {
  const all = cpus();
  return {
    name: 'processor',
    status: 'ok',
    found: `${all[0]?.model.trim() ?? 'unknown'}, ${all.length} cores (${process.platform} ${process.arch}, ${release()})`,
    mend: null,
  };
}

export function checkMemory(availableBytes = process.availableMemory(), totalBytes = totalmem()): Check {
  const little = availableBytes < 2 * GiB;
  return {
    name: 'memory',
    status: little ? 'warning' : 'ok',
    found: `${formatBytes(availableBytes)} available of ${formatBytes(totalBytes)}`,
    mend: little ? 'Close other programs: the demo needs about 2 GiB.' : null,
  };
}

export async function checkHome(home: string): Promise<Check> {
  const probe = join(home, `.doctor-${process.pid}`);
  try {
    await mkdir(home, { recursive: true });
    await writeFile(probe, 'x');
    await rm(probe);
    return { name: 'home', status: 'ok', found: home, mend: null };
  } catch (error) {
    return {
      name: 'home',
      status: 'missing',
      found: `${home} cannot be written: ${(error as Error).message}`,
      mend: 'Make it writable, or set CARAVAN_HOME to a folder that is.',
    };
  }
}

export async function checkDisk(home: string, freeBytes = freeDiskBytes(home)): Promise<Check> {
  const free = await freeBytes;
  const status = free < GiB / 4 ? 'missing' : free < 2 * GiB ? 'warning' : 'ok';
  return {
    name: 'disk',
    status,
    found: `${formatBytes(free)} free below ${home}`,
    mend: status === 'ok' ? null : 'Free some space, or set CARAVAN_HOME to a folder on a larger disk.',
  };
}

async function freeDiskBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

export function checkSqlite(version: string): Check {
  return { name: 'SQLite', status: 'ok', found: version, mend: null };
}

export function checkBrowser(path = process.env['PATH'] ?? '', platform: string = process.platform): Check {
  const browsers = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'firefox'];
  const openers = ['xdg-open', 'wslview'];
  const onPath = (names: string[]) =>
    names.find((name) =>
      path.split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, name))),
    );
  const found =
    platform === 'darwin' || platform === 'win32' ? "the system's" : (onPath(browsers) ?? onPath(openers));
  return {
    name: 'browser',
    status: found === undefined ? 'warning' : 'ok',
    found: found ?? 'none on this machine',
    mend:
      found === undefined
        ? 'caravan serve prints an address: open it from another machine through ssh -L, or install one (apt-get install -y chromium).'
        : null,
  };
}
