// What an unpacked desktop app must hold and must not: `node build/check_package.mjs FOLDER`.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join, relative, sep } from 'node:path';
import { spawnSync } from 'node:child_process';
import { findProgram } from './tools.mjs';

const { extractFile, listPackage, statFile } = createRequire(import.meta.url)('@electron/asar');

const needed = [
  'package.json',
  'native-files.json',
  'LICENSE',
  'electron/main/main.js',
  'electron/preload/preload.cjs',
  'electron/icon.png',
  'core/host/main.js',
  'core/engine/main.js',
  'core/data/main.js',
  'core/hub/main.js',
  'core/cli/main.js',
  'core/store/readerThread.js',
  'core/store/migrations/0001_init.sql',
  'out/renderer/index.html',
  'out/native/caravan.node',
  'node_modules/zod/package.json',
  'node_modules/ws/package.json',
];
const never = [
  [/\.(test|e2e|long)\.[cm]?[jt]s$/, 'a test'],
  [/(?<!\.d)\.[cm]?ts$/, 'TypeScript that nothing runs'],
  [/\.map$/, 'a source map'],
  [
    /^node_modules\/(electron|electron-builder|vite|vitest|vue|typescript|eslint|playwright-core)\//,
    'a tool of the build',
  ],
  [/^node_modules\/node-(linux|darwin|win)/, 'Node itself'],
  [/(^|\/)(libcuda\.so(\.\d+)*|nvcuda\.dll)$/, "NVIDIA's driver"],
  [/(^|\/)libcu(blas|dnn|fft|rand)[^/]*$|(^|\/)libnccl[^/]*$/, 'a library of CUDA outside the pack'],
  [/(^|\/)\.env|\.pem$|\.p12$/, 'a secret'],
];
const isNative = /\.(node|dll|dylib|so(\.\d+)*)$/;

/** @param {string} unpacked @returns {string[]} one sentence for each problem */
export function checkPackage(unpacked) {
  const resources = existsSync(join(unpacked, 'Contents/Resources'))
    ? join(unpacked, 'Contents/Resources')
    : join(unpacked, 'resources');
  const archive = join(resources, 'app.asar');
  if (!existsSync(archive)) return [`${archive} is not there`];
  const problems = [];
  const listed = listPackage(archive)
    .map((path) => path.slice(1).split(sep).join('/'))
    .filter((path) => !('files' in statFile(archive, path.split('/').join(sep))));
  const known = new Set(listed);
  for (const path of needed) if (!known.has(path)) problems.push(`${path} is missing from the archive`);
  for (const path of listed)
    for (const [pattern, what] of never)
      if (pattern.test(path)) problems.push(`${path}: ${what} has no place in it`);

  const natives = listed.filter((path) => isNative.test(path));
  if (known.has('native-files.json')) {
    const hashes = JSON.parse(extractFile(archive, 'native-files.json').toString('utf8'));
    for (const path of natives) {
      const real = join(`${archive}.unpacked`, path);
      if (!existsSync(real)) problems.push(`${path} is packed, where the linker cannot find it`);
      else if (hashes[path] === undefined) problems.push(`${path} is not in native-files.json`);
      else if (hashes[path] !== createHash('sha256').update(readFileSync(real)).digest('hex'))
        problems.push(`${path} is another than native-files.json says`);
    }
    for (const path of Object.keys(hashes))
      if (!known.has(path)) problems.push(`${path} is in native-files.json and not packed`);
  }
  const beside = existsSync(`${archive}.unpacked`) ? files(`${archive}.unpacked`) : [];
  for (const file of beside) {
    const path = relative(`${archive}.unpacked`, file).split(sep).join('/');
    if (!known.has(path)) problems.push(`${path} lies beside the archive and is not of it`);
    if (process.platform === 'linux' && isNative.test(path)) problems.push(...linkProblems(file));
  }
  if (existsSync(join(resources, 'app')))
    problems.push('resources/app would be loaded in place of the archive');
  return problems;
}

/** A library is found beside its user or in the system, never where it was built. */
function linkProblems(file) {
  if (findProgram('readelf') === undefined)
    return ['readelf is missing (apt-get install -y binutils): run paths were not checked'];
  const text = spawnSync('readelf', ['-d', file], { encoding: 'utf8' }).stdout;
  const problems = [];
  for (const [, paths] of text.matchAll(/\((?:RUNPATH|RPATH)\).*\[(.*)\]/g))
    for (const path of paths.split(':'))
      if (!/^\$ORIGIN(\/|$)/.test(path)) problems.push(`${basename(file)} looks for libraries in ${path}`);
  for (const [, name] of text.matchAll(/\(NEEDED\).*\[(.*)\]/g))
    if (/^lib(cuda|cudart|cublas|nvidia)/.test(name))
      problems.push(`${basename(file)} needs ${name} to load at all`);
  if (basename(file) === 'caravan.node' && !/\(RUNPATH\).*\[\$ORIGIN\]/.test(text))
    problems.push('caravan.node does not look for libraries beside itself ($ORIGIN)');
  return problems;
}

function files(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));
}

if (import.meta.main) {
  const folder = process.argv[2];
  if (folder === undefined || !statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    process.stderr.write('usage: node build/check_package.mjs FOLDER (the unpacked app)\n');
    process.exit(2);
  }
  const problems = checkPackage(folder);
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
