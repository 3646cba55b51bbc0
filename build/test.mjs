// `npm test`: every tier in one go, each part timed, what is missing named and counted, one closing line.
//   npm test -- --only=lint,unit    some parts alone
//   npm run test:long               the long tier instead: sanitizers and tests/*.long.ts
//   CARAVAN_REQUIRE=browser,data    a skip for lack of these is a failure
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative, findNvcc, missingTools } from './native.mjs';
import { buildRenderer } from './renderer.mjs';
import { findProgram, formatSeconds, jobs, out, root, run, runCommand } from './tools.mjs';

const HOUR = 3_600_000;
const results = join(out, 'test');
const skipList = join(results, 'skipped.jsonl');
const required = (process.env.CARAVAN_REQUIRE ?? '').split(',').filter((name) => name !== '');
const nativeSkipLines = [];
let nativeBuilds = true;

/** @typedef {{ passed: number, failed: number, skipped: number }} Tally */

/** @type {Record<string, () => Promise<Tally>>} */
const everyday = {
  lint: () => script('lint'),
  types: () => script('typecheck'),
  build: async () => {
    nativeBuilds = (await buildNative({ tests: true })).code === 0;
    return one(nativeBuilds);
  },
  // Where the build failed, each test would only say once more that it is missing.
  ctest: async () => (nativeBuilds ? ctest('native') : { passed: 0, failed: 0, skipped: 0 }),
  cuda: cuda,
  page: page,
  unit: () => vitest('unit'),
  native: () => vitest('native'),
  e2e: () => vitest('e2e'),
};

/** @type {Record<string, () => Promise<Tally>>} */
const long = {
  address: () => sanitized('address'),
  addon: () => sanitizedAddon(),
  undefined: () => sanitized('undefined'),
  thread: () => sanitized('thread'),
  long: () => vitest('long'),
};

const started = Date.now();
rmSync(results, { recursive: true, force: true });
mkdirSync(results, { recursive: true });
const missing = missingTools();
if (missing.length > 0) {
  process.stderr.write(`The native tests cannot be built. Missing:\n  ${missing.join('\n  ')}\n`);
  process.exit(3);
}

const parts = process.argv.includes('--long') ? long : everyday;
const only = process.argv
  .find((flag) => flag.startsWith('--only='))
  ?.slice('--only='.length)
  .split(',');
const unknown = (only ?? []).filter((name) => !(name in parts));
if (unknown.length > 0) {
  process.stderr.write(
    `--only names ${unknown.join(', ')}; the parts are ${Object.keys(parts).join(', ')}\n`,
  );
  process.exit(2);
}

/** @type {[name: string, tally: Tally, milliseconds: number][]} */
const done = [];
for (const [name, part] of Object.entries(parts)) {
  if (only !== undefined && !only.includes(name)) continue;
  process.stdout.write(`\n=== ${name}\n`);
  const begun = Date.now();
  done.push([name, await part(), Date.now() - begun]);
}
summarise();

/** @param {string} name one of build/*.mjs, which counts as one test */
async function script(name) {
  const { code } = await run(process.execPath, [join(root, 'build', `${name}.mjs`)]);
  return one(code === 0);
}

function one(passed) {
  return { passed: passed ? 1 : 0, failed: passed ? 0 : 1, skipped: 0 };
}

/** Compiles every CUDA kernel for one architecture, so that they cannot rot; their tests run where a GPU is. */
async function cuda() {
  if (findNvcc() === undefined) {
    nativeSkipLines.push('the CUDA kernels: install the CUDA toolkit (nvcc 12.8 or newer)');
    return { passed: 0, failed: 0, skipped: 1 };
  }
  const built = await buildNative({
    folder: 'native-cuda',
    cuda: '90a',
    tests: true,
    targets: ['cuda_tests'],
  });
  if (built.code !== 0) return one(false);
  const { passed, failed, skipped } = await ctest('native-cuda', ['-L', 'cuda']);
  return { passed: passed + 1, failed, skipped };
}

async function page() {
  if (!existsSync(join(root, 'renderer/index.html'))) return { passed: 0, failed: 0, skipped: 0 };
  return one((await buildRenderer()) === 0);
}

/**
 * @param {string} folder a build folder under out/
 * @param {string[]} [which] more of ctest's options
 */
async function ctest(folder, which = []) {
  const report = join(results, `ctest-${folder}.xml`);
  const { code } = await run(
    'ctest',
    [
      '--test-dir',
      join(out, folder),
      ...which,
      '--output-on-failure',
      '--no-tests=ignore',
      '--test-output-size-passed',
      '1000000',
      '-j',
      String(jobs),
      '--output-junit',
      report,
    ],
    { timeoutMs: HOUR },
  );
  if (!existsSync(report)) return one(code === 0);
  const text = readFileSync(report, 'utf8');
  const count = (name) => Number(new RegExp(`<testsuite[^>]*\\b${name}="(\\d+)"`).exec(text)?.[1] ?? 0);
  const failed = count('failures');
  const skipped = count('skipped') + count('disabled');
  const partly = nativeSkips(text);
  return {
    passed: count('tests') - failed - skipped,
    failed: failed || (code === 0 ? 0 : 1),
    skipped: skipped + partly,
  };
}

/**
 * A native test says what it left out on a line `SKIPPED <what>: <line that mends it>`, and one that ran nothing
 * `SKIPPED ALL <program>: <reason>`.
 * @param {string} report
 * @returns {number} lines of the first kind
 */
function nativeSkips(report) {
  const lines = new Set(
    report.match(/^\s*(?:\[[^\]]*\]\s*)?SKIPPED (?!ALL ).*$/gm)?.map((line) => line.trim()) ?? [],
  );
  for (const line of lines) nativeSkipLines.push(line.replace(/^.*?SKIPPED /, ''));
  /** Programs that ran nothing (ctest counts them), by their reason. @type {Map<string, number>} */
  const whole = new Map();
  for (const [, reason] of report.matchAll(/SKIPPED ALL [^:\n]*: (.*)/g))
    whole.set(reason, (whole.get(reason) ?? 0) + 1);
  for (const [reason, count] of whole) nativeSkipLines.push(`${count} native test programs: ${reason}`);
  return lines.size;
}

/**
 * @param {string} project one of vitest.config.ts
 * @param {{ name?: string, env?: Record<string, string> }} [options] name: the report's; env: beside this process's own
 */
async function vitest(project, { name = project, env = {} } = {}) {
  const report = join(results, `vitest-${name}.json`);
  const { code } = await runCommand(
    'vitest',
    [
      'run',
      `--project=${project}`,
      '--passWithNoTests',
      '--reporter=dot',
      '--reporter=json',
      `--outputFile.json=${report}`,
    ],
    {
      env: { ...env, CARAVAN_SKIP_LIST: skipList, NO_COLOR: process.stdout.isTTY ? undefined : '1' },
      timeoutMs: project === 'long' ? 2 * HOUR : HOUR / 4,
    },
  );
  if (!existsSync(report)) return one(code === 0);
  const tally = JSON.parse(readFileSync(report, 'utf8'));
  // A file that could not be loaded fails as a suite without one failed test.
  const failed = tally.numFailedTests || (code === 0 ? 0 : 1);
  return { passed: tally.numPassedTests, failed, skipped: tally.numPendingTests + (tally.numTodoTests ?? 0) };
}

/** Every native test, instrumented. */
async function sanitized(kind) {
  // Hostile files get as many mutations as were asked of the whole: instrumented is where they tell most.
  process.env['CARAVAN_FUZZ_MUTATIONS'] ??= '500';
  const { code } = await buildNative({ sanitize: kind, quiet: false });
  return code === 0 ? ctest(`native-${kind}`) : one(false);
}

/**
 * The tests of the addon, with the one that `address` built. Node is not instrumented, so its own leaks are nobody's news.
 */
async function sanitizedAddon() {
  const { code, folder } = await buildNative({ sanitize: 'address', quiet: false });
  if (code !== 0) return one(false);
  const compiler = process.env.CXX ?? findProgram('g++', 'c++');
  const { output } = await run(compiler, ['-print-file-name=libasan.so'], { quiet: true });
  const env = {
    CARAVAN_ADDON: join(folder, 'caravan.node'),
    LD_PRELOAD: output.trim(),
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1',
  };
  return vitest('native', { name: 'addon', env });
}

function summarise() {
  const total = { passed: 0, failed: 0, skipped: 0 };
  process.stdout.write('\n');
  for (const [name, tally, milliseconds] of done) {
    for (const key of Object.keys(total)) total[key] += tally[key];
    const counts = Object.entries(tally).filter(([, count]) => count > 0);
    const words = counts.map(([key, count]) => `${count} ${key}`).join(', ') || 'nothing to do';
    process.stdout.write(`${name.padEnd(10)} ${formatSeconds(milliseconds).padStart(11)}   ${words}\n`);
  }
  for (const { what, mend, count } of skips())
    process.stdout.write(`SKIPPED ${what}: ${mend}${count > 1 ? ` (${count} files)` : ''}\n`);
  for (const line of nativeSkipLines) process.stdout.write(`SKIPPED ${line}\n`);
  const refused = required.includes('data')
    ? nativeSkipLines.filter((line) => line.includes('CARAVAN_TEST_DATA'))
    : [];
  if (refused.length > 0) {
    process.stdout.write('CARAVAN_REQUIRE names data: the native skips above count as failures\n');
    total.failed += refused.length;
    total.skipped -= refused.length;
  }
  process.stdout.write(`in ${formatSeconds(Date.now() - started)}\n`);
  process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
  process.exitCode = total.failed > 0 ? 1 : 0;
}

/** What tests/support/skip.ts recorded, each line once with how often it was met. */
function skips() {
  const counted = new Map();
  const lines = existsSync(skipList) ? readFileSync(skipList, 'utf8').split('\n') : [];
  for (const line of lines.filter((text) => text !== '')) counted.set(line, (counted.get(line) ?? 0) + 1);
  return [...counted].map(([line, count]) => ({ ...JSON.parse(line), count }));
}
