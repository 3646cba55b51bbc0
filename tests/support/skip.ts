/**
 * What a test needs beyond the checkout, and what happens where it is absent: the test is skipped, the reason and the
 * line that mends it are printed and counted at the end of `npm test`. `CARAVAN_REQUIRE=browser,data` turns such a
 * skip into a failure.
 *
 *     test.runIf(needs('data'))('imports the sample', () => { readFileSync(testData('data/idae-sample.json')); });
 */
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const checkout = fileURLToPath(new URL('../..', import.meta.url));

export type Requirement =
  'addon' | 'data' | 'browser' | 'page' | 'python' | 'gguf' | 'torch' | 'gpu' | 'electron' | 'mount';

/** Where build/test.mjs reads what was skipped: one JSON object a line. */
export interface SkipRecord {
  requirement: Requirement;
  what: string;
  mend: string;
}

const requirements: Record<Requirement, { present: () => boolean; what: string; mend: string }> = {
  addon: {
    present: () => existsSync(addonPath()),
    what: 'tests of the native addon',
    mend: 'npm run build:native',
  },
  data: {
    present: () => dataFolder() !== undefined && existsSync(join(dataFolder()!, 'data')),
    what: 'tests on real data',
    mend: 'set CARAVAN_TEST_DATA to the folder that holds data/ and models/',
  },
  browser: {
    present: () => browserPath() !== undefined,
    what: 'tests in a real browser',
    mend: 'apt-get install -y chromium, or set CARAVAN_BROWSER to a Chromium',
  },
  page: {
    present: () => existsSync(join(checkout, 'out/renderer/index.html')),
    what: 'tests of the built page',
    mend: 'npm run build:renderer',
  },
  python: {
    present: () => succeeds('python3', ['--version']),
    what: 'comparisons that run Python',
    mend: 'apt-get install -y python3',
  },
  gguf: {
    present: () => succeeds('python3', ['-c', 'import numpy, gguf']),
    what: 'tests on models that Python unpacks',
    mend: 'pip install numpy gguf',
  },
  torch: {
    present: () => succeeds('python3', ['-c', 'import torch, transformers, peft, safetensors']),
    what: 'comparisons with PyTorch',
    mend: 'pip install torch transformers peft',
  },
  gpu: {
    present: () => succeeds('nvidia-smi', ['-L']),
    what: 'tests on an NVIDIA GPU',
    mend: 'run on a machine with an NVIDIA GPU and its driver',
  },
  electron: {
    present: () => existsSync(join(checkout, 'node_modules/electron/dist')),
    what: 'tests in a real Electron',
    mend: 'npm install electron where there is a network',
  },
  mount: {
    present: () => process.platform === 'linux' && canMount(),
    what: 'tests on a full disk',
    mend: 'run as root, where a tmpfs can be mounted',
  },
};

const known = new Map<Requirement, boolean>();

/**
 * @param what names the tests in the printed line; by default the requirement's own words
 * @returns whether the requirement is there; where it is not, the skip is recorded
 * @throws Error where CARAVAN_REQUIRE names the requirement and it is absent
 */
export function needs(requirement: Requirement, what?: string): boolean {
  const { present, what: usual, mend } = requirements[requirement];
  let there = known.get(requirement);
  if (there === undefined) known.set(requirement, (there = present()));
  if (there) return true;
  const record: SkipRecord = { requirement, what: what ?? usual, mend };
  if ((process.env['CARAVAN_REQUIRE'] ?? '').split(',').includes(requirement)) {
    throw new Error(`CARAVAN_REQUIRE names ${requirement}, which is absent: ${mend}`);
  }
  const list = process.env['CARAVAN_SKIP_LIST'];
  if (list === undefined) {
    process.stderr.write(`SKIPPED ${record.what}: ${mend}\n`);
  } else {
    mkdirSync(dirname(list), { recursive: true });
    appendFileSync(list, `${JSON.stringify(record)}\n`);
  }
  return false;
}

/** @returns the path of a file under CARAVAN_TEST_DATA; ask `needs('data')` first */
export function testData(path: string): string {
  const folder = dataFolder();
  if (folder === undefined)
    throw new Error("CARAVAN_TEST_DATA is not set: guard this test with needs('data')");
  return join(folder, path);
}

/** @returns a Chromium: CARAVAN_BROWSER, or the first on PATH; undefined where there is none */
export function browserPath(): string | undefined {
  const named = process.env['CARAVAN_BROWSER'];
  if (named !== undefined && named !== '') return named;
  for (const name of ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']) {
    for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
      if (folder !== '' && existsSync(join(folder, name))) return join(folder, name);
    }
  }
  return undefined;
}

/** The addon that `npm install` builds, or the one CARAVAN_ADDON names. */
export function addonPath(): string {
  return process.env['CARAVAN_ADDON'] ?? join(checkout, 'out/native/caravan.node');
}

function dataFolder(): string | undefined {
  const folder = process.env['CARAVAN_TEST_DATA'];
  return folder === undefined || folder === '' ? undefined : folder;
}

function succeeds(program: string, args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-mount-'));
  try {
    if (!succeeds('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder])) return false;
    return succeeds('umount', [folder]);
  } finally {
    rmdirSync(folder);
  }
}
