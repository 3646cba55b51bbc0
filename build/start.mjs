// `npm start`: opens the desktop app. Where Electron's binary is missing it is fetched first, by Electron's own installer
// (ELECTRON_MIRROR and its other settings hold); where that fails, or with `--browser`, the same workbench opens in the
// browser, and the reason is said.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { root, run } from './tools.mjs';

const electronFolder = join(root, 'node_modules/electron');

/**
 * Where Electron's program lies, or would.
 * @param {{ folder?: string, env?: Record<string, string | undefined>, platform?: NodeJS.Platform }} [given]
 */
export function electronBinary({
  folder = electronFolder,
  env = process.env,
  platform = process.platform,
} = {}) {
  const named = join(folder, 'path.txt');
  const usual =
    platform === 'darwin'
      ? 'Electron.app/Contents/MacOS/Electron'
      : platform === 'win32'
        ? 'electron.exe'
        : 'electron';
  const program = existsSync(named) ? readFileSync(named, 'utf8') : usual;
  return join(env.ELECTRON_OVERRIDE_DIST_PATH || join(folder, 'dist'), program);
}

/**
 * @param {{ folder?: string, env?: Record<string, string | undefined> }} [given]
 * @returns {Promise<{ binary: string } | { reason: string }>}
 */
export async function obtainElectron({ folder = electronFolder, env = process.env } = {}) {
  const binary = electronBinary({ folder, env });
  if (existsSync(binary)) return { binary };
  if (env.ELECTRON_OVERRIDE_DIST_PATH)
    return { reason: `ELECTRON_OVERRIDE_DIST_PATH names a folder without Electron (${binary} is not there)` };
  const installer = join(folder, 'install.js');
  if (!existsSync(installer)) return { reason: 'the package electron is not installed (npm install)' };
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  process.stderr.write(
    `Fetching Electron ${version} (about 110 MB) from ${env.ELECTRON_MIRROR || 'github.com'} ...\n`,
  );
  const { code, output } = await run(process.execPath, [installer], { quiet: !process.stderr.isTTY, env });
  if (code === 0 && existsSync(binary)) return { binary };
  const line = output.split('\n').find((text) => /error|ENOTFOUND|ECONN|HTTP/i.test(text));
  return { reason: `Electron could not be fetched (${line?.trim() ?? `its installer ended with ${code}`})` };
}

async function open() {
  const words = process.argv.slice(2);
  const inBrowser = words.includes('--browser');
  const found = inBrowser ? { reason: '--browser was given' } : await obtainElectron();
  if ('reason' in found) {
    process.stderr.write(
      `Opening the workbench in the browser: ${found.reason}.\n` +
        (inBrowser
          ? ''
          : 'Behind a firewall set ELECTRON_MIRROR, or unpack Electron and set ELECTRON_OVERRIDE_DIST_PATH.\n'),
    );
    return hand(process.execPath, [
      join(root, 'bin/caravan.mjs'),
      'serve',
      ...words.filter((word) => word !== '--browser'),
    ]);
  }
  const { stageApp } = await import('./stage_app.mjs');
  const app = await stageApp();
  return hand(found.binary, [app, ...words]);
}

/** Ends as the program ends; a signal to this process is one to it. */
function hand(program, args) {
  const child = spawn(program, args, { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve) => {
    child.on('error', (error) => {
      process.stderr.write(`${program}: ${error.message}\n`);
      resolve(3);
    });
    child.on('exit', (code) => resolve(code ?? 4));
  });
}

if (import.meta.main) process.exitCode = await open();
