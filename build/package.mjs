// `npm run package`: the desktop app for this platform, into out/package/desktop. Electron is fetched as by `npm start`.
//   --dir         the unpacked folder only
//   --stand-in    with files in Electron's place, where it cannot be had: never to be shipped; checks what is packed
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { checkPackage } from './check_package.mjs';
import { builderConfig } from './electron_builder.mjs';
import { appFolder, stageApp } from './stage_app.mjs';
import { obtainElectron } from './start.mjs';
import { formatSeconds, out, root } from './tools.mjs';

/**
 * Files of the names that Electron's have: enough for electron-builder to pack around them.
 * @returns {string} the folder
 */
export function makeStandIn(version) {
  const folder = join(out, 'package/electron-stand-in');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'resources'), { recursive: true });
  writeFileSync(join(folder, 'version'), version);
  for (const name of ['LICENSE', 'LICENSES.chromium.html', 'resources.pak'])
    writeFileSync(join(folder, name), name);
  for (const name of ['electron', 'chrome-sandbox', 'chrome_crashpad_handler']) {
    writeFileSync(join(folder, name), '#!/bin/sh\necho "a stand-in for Electron" >&2\nexit 3\n');
    chmodSync(join(folder, name), 0o755);
  }
  return folder;
}

/** @param {{ dir?: boolean, standIn?: boolean }} options @returns {Promise<string>} the unpacked folder */
export async function packageApp({ dir = false, standIn = false } = {}) {
  const { version } = JSON.parse(readFileSync(join(root, 'node_modules/electron/package.json'), 'utf8'));
  let electronDist;
  if (standIn) electronDist = makeStandIn(version);
  else {
    const found = await obtainElectron();
    if ('reason' in found)
      throw new Error(`${found.reason}; with -- --stand-in the packing alone is checked`);
    // On macOS the program lies three folders down.
    electronDist =
      process.platform === 'darwin' ? join(dirname(found.binary), '../../..') : dirname(found.binary);
  }
  await stageApp({ packages: true });
  rmSync(join(out, 'package/desktop'), { recursive: true, force: true });
  const { build } = await import('electron-builder');
  await build({
    projectDir: appFolder,
    dir: dir || standIn,
    config: builderConfig({ electronDist, electronVersion: version, fused: !standIn }),
  });
  const unpacked = join(
    out,
    'package/desktop',
    process.platform === 'linux'
      ? 'linux-unpacked'
      : process.platform === 'win32'
        ? 'win-unpacked'
        : 'mac-arm64/Caravan.app',
  );
  return unpacked;
}

if (import.meta.main) {
  const started = Date.now();
  const words = process.argv.slice(2);
  const unpacked = await packageApp({ dir: words.includes('--dir'), standIn: words.includes('--stand-in') });
  const problems = checkPackage(unpacked);
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.stdout.write(`${unpacked} (${formatSeconds(Date.now() - started)}, ${problems.length} problems)\n`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
