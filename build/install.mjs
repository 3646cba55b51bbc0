// Runs at the end of `npm install` and `npm ci`: builds the native engine and puts the `caravan` command where npx
// finds it. No package of ours needs an install script of its own, so npm may block all of those.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { pinnedNode } from '../bin/pinnedNode.mjs';
import { buildNative, missingTools } from './native.mjs';
import { formatSeconds, jobs, root } from './tools.mjs';

if (Number.parseInt(process.versions.node, 10) < 24) {
  // npm 10 does not link the command `node` of an optional package, so this script may run on the user's own Node.
  const node = pinnedNode();
  if (node !== undefined)
    process.exit(spawnSync(node, process.argv.slice(1), { stdio: 'inherit' }).status ?? 1);
  process.stderr.write(
    `npm did not install Node 24 for ${process.platform}-${process.arch}, and ${process.versions.node} is too old to run ` +
      'Caravan: run npm install again without --omit=optional, or install Node 24 from https://nodejs.org.\n',
  );
  process.exit(3);
}

const missing = missingTools();
if (missing.length > 0) {
  process.stderr.write(
    `\nThe packages are installed, but the native engine cannot be built. Missing:\n  ${missing.join('\n  ')}\n` +
      'Install what is named (as root, or with sudo; after apt-get update), then run npm install again.\n\n',
  );
  process.exit(3);
}

linkCommand();
linkNode();

const started = Date.now();
process.stdout.write(`Building the native engine on ${jobs} cores ...\n`);
const { code, output } = await buildNative({ quiet: true });
if (code !== 0) {
  process.stderr.write(`${output}\nThe native engine did not build; the compiler's message is above.\n`);
  process.exit(1);
}
process.stdout.write(`Native engine ready (${formatSeconds(Date.now() - started)}). Try: npm run demo\n`);

/** npx looks for a checkout's own command in node_modules/.bin, where npm does not link it. */
function linkCommand() {
  const folder = join(root, 'node_modules/.bin');
  mkdirSync(folder, { recursive: true });
  const command = join(root, 'bin/caravan.mjs');
  if (!existsSync(command)) return;
  if (process.platform === 'win32') {
    writeFileSync(join(folder, 'caravan.cmd'), '@node "%~dp0\\..\\..\\bin\\caravan.mjs" %*\r\n');
    return;
  }
  chmodSync(command, 0o755);
  rmSync(join(folder, 'caravan'), { force: true });
  symlinkSync('../../bin/caravan.mjs', join(folder, 'caravan'));
}

/** npm's scripts run on what this folder calls `node`. */
function linkNode() {
  const command = join(root, 'node_modules/.bin/node');
  const node = pinnedNode();
  if (node === undefined || process.platform === 'win32' || existsSync(command)) return;
  symlinkSync(relative(join(root, 'node_modules/.bin'), node), command);
}
