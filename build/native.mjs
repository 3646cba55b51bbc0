// Builds the native part with CMake into out/native: `npm run build:native [-- --tests] [--bench] [--sanitize=KIND]`.
// The addon, the tests and the benchmarks share one build folder, so that nothing is compiled twice; a sanitizer gets
// a folder of its own. `npm run build:cuda [-- --arch native|90a|all]` builds the addon with its CUDA kernels; without
// that they are compiled where both nvcc and a GPU are found, for that GPU.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { findProgram, formatSeconds, jobs, out, root, run } from './tools.mjs';

const MIN_CMAKE = [3, 22];
const MIN_GXX = 11;

/**
 * What the native build needs and this machine lacks.
 * @returns {string[]} one line for each missing tool, with the line that installs it; empty if nothing is missing
 */
export function missingTools() {
  const missing = [];
  const compiler = process.env.CXX ?? findProgram('g++', 'c++', 'clang++', 'cl');
  if (compiler === undefined) {
    missing.push('g++, the C++ compiler (11 or newer): apt-get install -y g++');
  } else {
    const version =
      spawnSync(compiler, ['-dumpfullversion', '-dumpversion'], { encoding: 'utf8' }).stdout ?? '';
    if (/g\+\+/.test(compiler) && !compiler.includes('clang') && Number.parseInt(version, 10) < MIN_GXX) {
      missing.push(
        `g++ ${MIN_GXX} or newer (${compiler} is ${version.trim()}): apt-get install -y g++-${MIN_GXX}, then CXX=g++-${MIN_GXX}`,
      );
    }
  }
  const cmake = findProgram('cmake');
  if (cmake === undefined) {
    missing.push(`cmake (${MIN_CMAKE.join('.')} or newer): apt-get install -y cmake`);
  } else {
    const version = /version (\d+)\.(\d+)/.exec(
      spawnSync(cmake, ['--version'], { encoding: 'utf8' }).stdout ?? '',
    );
    const [major, minor] = version ? [Number(version[1]), Number(version[2])] : [0, 0];
    if (major < MIN_CMAKE[0] || (major === MIN_CMAKE[0] && minor < MIN_CMAKE[1])) {
      missing.push(
        `cmake ${MIN_CMAKE.join('.')} or newer (${cmake} is ${major}.${minor}): apt-get install -y cmake`,
      );
    }
  }
  if (process.platform !== 'win32' && findProgram('make', 'gmake', 'ninja') === undefined) {
    missing.push('make or ninja, which cmake drives: apt-get install -y make');
  }
  return missing;
}

/**
 * The architectures to compile CUDA for when nothing is said: this machine's GPU, if it has one and nvcc too.
 * @returns {string | undefined}
 */
export function usualCuda() {
  const gpu = existsSync('/dev/nvidiactl') || findProgram('nvidia-smi') !== undefined;
  return gpu && findNvcc() !== undefined ? 'native' : undefined;
}

/** @returns {string | undefined} */
export function findNvcc() {
  const usual = '/usr/local/cuda/bin/nvcc';
  return process.env.CUDACXX ?? findProgram('nvcc') ?? (existsSync(usual) ? usual : undefined);
}

/**
 * Configures and builds; does nothing of what is already up to date.
 * @param {{ tests?: boolean, bench?: boolean, sanitize?: string, quiet?: boolean, cuda?: string, folder?: string,
 *   targets?: string[] }} [options] cuda: architectures, else those of {@link usualCuda}; folder: below out/, where it is not
 *   the usual one, and then without the addon
 * @returns {Promise<{ code: number, output: string, folder: string }>}
 */
export async function buildNative(options = {}) {
  const folder = join(out, options.folder ?? (options.sanitize ? `native-${options.sanitize}` : 'native'));
  const cuda = options.cuda ?? (options.sanitize ? undefined : usualCuda());
  const nvcc = findNvcc();
  discardForeignCache(folder);
  mkdirSync(folder, { recursive: true });
  // Other folders compile source by source, so that each shows what it forgot to include; so does ccache, which knows it then.
  const precompile = !options.sanitize && !options.folder && !process.env.CMAKE_CXX_COMPILER_LAUNCHER;
  const settings = [
    '-DCMAKE_BUILD_TYPE=Release',
    '-DCARAVAN_BUILD_TESTS=ON',
    `-DCARAVAN_BUILD_BENCH=${options.bench ? 'ON' : 'OFF'}`,
    `-DCARAVAN_PRECOMPILE=${precompile ? 'ON' : 'OFF'}`,
    `-DCARAVAN_SANITIZE=${options.sanitize ?? ''}`,
    `-DCARAVAN_CUDA=${cuda === undefined ? 'OFF' : 'ON'}`,
    ...(cuda === undefined ? [] : [`-DCARAVAN_CUDA_ARCH=${cuda}`, `-DCMAKE_CUDA_COMPILER=${nvcc}`]),
    // Node can be given AddressSanitizer's runtime from outside; the other sanitizers would need a Node built with them.
    ...(options.folder || (options.sanitize && options.sanitize !== 'address') ? [] : nodeHeaders()),
  ];
  const configured = await run('cmake', ['-S', join(root, 'native'), '-B', folder, ...settings], {
    quiet: true,
  });
  if (configured.code !== 0) return { ...configured, folder };
  const all = options.tests || options.bench || options.sanitize;
  const targets = options.targets
    ? ['--target', ...options.targets]
    : all
      ? []
      : ['--target', 'caravan_addon'];
  const built = await run('cmake', ['--build', folder, '--parallel', String(jobs), ...targets], {
    quiet: options.quiet,
  });
  return { ...built, folder };
}

/** A build folder that was made for another checkout, as by copying one with its out/, cannot be built again. */
function discardForeignCache(folder) {
  const cache = join(folder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  if (home !== join(root, 'native').replaceAll('\\', '/')) rmSync(folder, { recursive: true, force: true });
}

function nodeHeaders() {
  const require = createRequire(import.meta.url);
  const { include_dir: nodeApi } = require('node-api-headers');
  const nodeAddonApi = join(root, 'node_modules/node-addon-api');
  return [`-DCARAVAN_NODE_API_INCLUDE=${nodeApi}`, `-DCARAVAN_NODE_ADDON_API_INCLUDE=${nodeAddonApi}`];
}

if (import.meta.main) {
  const missing = missingTools();
  if (missing.length > 0) {
    process.stderr.write(`Cannot build the native part. Missing:\n  ${missing.join('\n  ')}\n`);
    process.exit(3);
  }
  const flags = process.argv.slice(2);
  const asksForCuda = flags.includes('--cuda');
  const arch = flags.includes('--arch') ? flags[flags.indexOf('--arch') + 1] : 'native';
  if (asksForCuda && findNvcc() === undefined) {
    process.stderr.write(
      'Cannot compile CUDA: nvcc is missing. Install the CUDA toolkit (12.8 or newer; apt-get install -y nvidia-cuda-toolkit ' +
        'may be older), or set CUDACXX to its nvcc.\n',
    );
    process.exit(3);
  }
  const started = Date.now();
  const { code, output } = await buildNative({
    tests: flags.includes('--tests'),
    bench: flags.includes('--bench'),
    sanitize: flags.find((flag) => flag.startsWith('--sanitize='))?.slice('--sanitize='.length),
    ...(asksForCuda && { cuda: arch }),
  });
  if (code !== 0) process.stderr.write(output);
  else process.stdout.write(`Native build up to date (${formatSeconds(Date.now() - started)}).\n`);
  process.exitCode = code;
}
