// What every build script shares: where the checkout lies, how a program is run and found.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** All that is generated goes here, and nothing else does. */
export const out = join(root, 'out');

export const jobs = availableParallelism();

/** The JavaScript file behind a package's command, so that it runs on this very Node on every platform. */
export const commands = {
  eslint: join(root, 'node_modules/eslint/bin/eslint.js'),
  prettier: join(root, 'node_modules/prettier/bin/prettier.cjs'),
  tsc: join(root, 'node_modules/typescript/bin/tsc'),
  vueTsc: join(root, 'node_modules/vue-tsc/bin/vue-tsc.js'),
  vite: join(root, 'node_modules/vite/bin/vite.js'),
  vitest: join(root, 'node_modules/vitest/vitest.mjs'),
};

/**
 * Runs a program in the checkout and waits for it.
 * @param {string} program
 * @param {string[]} args
 * @param {{ env?: Record<string, string | undefined>, quiet?: boolean, cwd?: string, timeoutMs?: number }} [options] quiet: keep its
 *   output instead of showing it; timeoutMs: end it, and all that it started, after so long
 * @returns {Promise<{ code: number, output: string }>} code 128 if a signal ended it, 127 if it could not start,
 *   124 if its time was up
 */
export function run(program, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd ?? root,
      env: { ...process.env, ...options.env },
      stdio: options.quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
      // A group of its own, so that a process which hangs can be ended together with its children.
      detached: options.timeoutMs !== undefined && process.platform !== 'win32',
    });
    let output = '';
    let timedOut = false;
    const timer =
      options.timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            process.stderr.write(
              `${program} ${args.join(' ')}: ended after ${formatSeconds(options.timeoutMs)}\n`,
            );
            endGroup(child);
          }, options.timeoutMs);
    const passOn = (signal) => endGroup(child, signal);
    if (timer !== undefined) for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, passOn);
    child.stdout?.on('data', (chunk) => (output += chunk));
    child.stderr?.on('data', (chunk) => (output += chunk));
    const settle = (result) => {
      clearTimeout(timer);
      for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, passOn);
      resolve(result);
    };
    child.on('error', (error) => settle({ code: 127, output: `${program}: ${error.message}\n` }));
    child.on('close', (code) => settle({ code: timedOut ? 124 : (code ?? 128), output }));
  });
}

function endGroup(child, signal = 'SIGKILL') {
  try {
    if (process.platform === 'win32') child.kill(signal);
    else process.kill(-child.pid, signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** Runs one of `commands` on this Node. */
export function runCommand(name, args, options) {
  return run(process.execPath, [commands[name], ...args], options);
}

/** @returns {string | undefined} the full path of the first of `names` that is on PATH */
export function findProgram(...names) {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd', ''] : [''];
  for (const name of names) {
    for (const folder of (process.env.PATH ?? '').split(delimiter)) {
      for (const ending of endings) {
        const candidate = join(folder, name + ending);
        if (folder !== '' && existsSync(candidate)) return candidate;
      }
    }
  }
  return undefined;
}

/** @returns {string[]} the files of the checkout that Git tracks or would track, relative to the root, that still exist */
export function projectFiles(...patterns) {
  const listed = spawnSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', ...patterns],
    {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    },
  );
  if (listed.status !== 0) throw new Error(`git ls-files: ${listed.stderr || listed.error?.message}`);
  return [...new Set(listed.stdout.split('\0'))]
    .filter((file) => file !== '' && existsSync(join(root, file)))
    .sort();
}

/** "0.8 s", "74 s", "3 min 05 s" */
export function formatSeconds(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${String(Math.round(seconds) % 60).padStart(2, '0')} s`;
}
