// Lays the desktop app out in out/app as Electron runs it: the sources with their types removed, line by line, so that a
// stack trace still names the line of the source; the page; the addon. With `packages` also the packages that run needs
// and the list of native files: what electron-builder packs.
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, join, relative, sep } from 'node:path';
import { copyPackage, runtimePackages } from './package_server.mjs';
import { buildNative } from './native.mjs';
import { buildRenderer } from './renderer.mjs';
import { out, root, run } from './tools.mjs';

export const appFolder = join(out, 'app');
const isTest = (file) => /\.(test|e2e|long)\.ts$/.test(file);
const isNative = (file) => /\.(node|dll|dylib|so(\.\d+)*)$/.test(file);

/**
 * One file of ours for a runtime that removes no types: every relative name that ends in .ts (imports, entries of
 * processes and threads) ends in .js, .cts in .cjs.
 * @param {string} source
 */
export function stripSource(source) {
  return stripTypeScriptTypes(source, { mode: 'strip' }).replace(
    /(['"])((?:[\w.-]+\/)*[\w-]+(?:\.[\w-]+)*)\.(c?)ts\1/g,
    (_whole, quote, path, common) => `${quote}${path}.${common}js${quote}`,
  );
}

/** @param {{ packages?: boolean }} [options] */
export async function stageApp({ packages = false } = {}) {
  // CARAVAN_ADDON names one that was built elsewhere, as everywhere.
  const addon = process.env.CARAVAN_ADDON ?? join(out, 'native/caravan.node');
  const native = process.env.CARAVAN_ADDON ? { code: 0, output: '' } : await buildNative({ quiet: true });
  if (native.code !== 0) throw new Error(`the addon did not build:\n${native.output}`);
  if ((await buildRenderer()) !== 0) throw new Error('the page did not build');
  rmSync(appFolder, { recursive: true, force: true });
  for (const folder of ['core', 'electron', 'demo', 'bin']) stripFolder(folder);
  for (const file of ['LICENSE', 'NOTICE']) copyFileSync(join(root, file), join(appFolder, file));
  const { name, version, description, license } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  );
  writeFileSync(
    join(appFolder, 'package.json'),
    `${JSON.stringify({ name, productName: 'Caravan', version, description, license, author: 'The Caravan authors', type: 'module', main: 'electron/main/main.js' }, null, 2)}\n`,
  );
  mkdirSync(join(appFolder, 'out/native'), { recursive: true });
  if (packages) {
    cpSync(join(out, 'renderer'), join(appFolder, 'out/renderer'), {
      recursive: true,
      filter: (file) => !file.endsWith('.map'),
    });
    copyFileSync(addon, join(appFolder, 'out/native/caravan.node'));
    if (process.platform === 'linux')
      await run('strip', ['--strip-unneeded', join(appFolder, 'out/native/caravan.node')], { quiet: true });
    for (const path of runtimePackages()) copyPackage(path, appFolder);
    writeFileSync(join(appFolder, 'native-files.json'), `${JSON.stringify(hashNative(), null, 2)}\n`);
  } else {
    const kind = process.platform === 'win32' ? 'junction' : 'dir';
    symlinkSync(join(out, 'renderer'), join(appFolder, 'out/renderer'), kind);
    rmSync(join(appFolder, 'out/native'), { recursive: true });
    symlinkSync(dirname(addon), join(appFolder, 'out/native'), kind);
  }
  return appFolder;
}

function stripFolder(folder) {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    const from = join(entry.parentPath, entry.name);
    if (isTest(entry.name) || /^tsconfig.*\.json$|\.d\.ts$/.test(entry.name)) continue;
    const to = join(appFolder, relative(root, from)).replace(/\.(c?)ts$/, '.$1js');
    mkdirSync(dirname(to), { recursive: true });
    if (/\.c?ts$/.test(entry.name)) writeFileSync(to, stripSource(readFileSync(from, 'utf8')));
    else if (folder === 'bin')
      writeFileSync(to, readFileSync(from, 'utf8').replaceAll('core/cli/main.ts', 'core/cli/main.js'));
    else copyFileSync(from, to);
  }
}

/** @returns {Record<string, string>} path with slashes to SHA-256, in order */
function hashNative() {
  return Object.fromEntries(
    readdirSync(appFolder, { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && isNative(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((file) => [
        relative(appFolder, file).split(sep).join('/'),
        createHash('sha256').update(readFileSync(file)).digest('hex'),
      ]),
  );
}

if (import.meta.main) {
  const started = Date.now();
  await stageApp({ packages: process.argv.includes('--packages') });
  process.stdout.write(`${appFolder} (${Date.now() - started} ms)\n`);
}
