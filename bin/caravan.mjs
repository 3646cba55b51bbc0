#!/usr/bin/env node
// The `caravan` command. Its sources need Node 24: better-sqlite3 crashes the process on older ones and TypeScript
// would not load. So this file keeps to what any Node since 12.20 understands, and where the running Node is older it
// starts the Node 24 that npm installed beside the other packages, or says in one sentence what to do.
import { spawn } from 'child_process';
import { existsSync } from 'fs';
import { dirname, join } from 'path';
import { fileURLToPath, pathToFileURL } from 'url';
import { pinnedNode } from './pinnedNode.mjs';

const REQUIRED_MAJOR = 24;
const EXIT_MACHINE_LACKS = 3;

/** Runs this same command line on `node` and ends as it ends: same exit code, or the same signal. */
function reexecute(node) {
  const child = spawn(node, [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: Object.assign({}, process.env, { CARAVAN_REEXECUTED: '1' }),
  });
  // Ctrl+C in a terminal reaches parent and child alike; sent on, the child would take it for a second, forcing one.
  const relayed = process.stdin.isTTY ? ['SIGTERM', 'SIGHUP'] : ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (relayed.includes(signal)) child.kill(signal);
    });
  }
  child.on('error', (error) => {
    process.stderr.write('caravan: cannot start ' + node + ': ' + error.message + '. Run: npm install\n');
    process.exit(EXIT_MACHINE_LACKS);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** In a checkout the page is built when `serve` wants it; where that fails, the host says what is missing. */
function buildStalePage(args) {
  const build = join(dirname(dirname(fileURLToPath(import.meta.url))), 'build/renderer.mjs');
  if (args[0] !== 'serve' || args.includes('--help') || args.includes('-h') || !existsSync(build))
    return Promise.resolve();
  return import(pathToFileURL(build).href)
    .then(({ buildRenderer }) => buildRenderer())
    .catch((error) => process.stderr.write('caravan: the page was not built: ' + error.message + '\n'));
}

const runningMajor = Number.parseInt(process.versions.node, 10);
if (runningMajor >= REQUIRED_MAJOR) {
  // Not `await`: Node 12 could not even parse this file then.
  buildStalePage(process.argv.slice(2))
    .then(() => import('../core/cli/main.ts'))
    .then(({ main }) => main(process.argv.slice(2)))
    .then((exitCode) => {
      process.exitCode = exitCode;
    });
} else {
  const node = pinnedNode();
  if (node === undefined || process.env.CARAVAN_REEXECUTED) {
    process.stderr.write(
      'caravan needs Node ' +
        REQUIRED_MAJOR +
        ' and runs on ' +
        process.versions.node +
        ': run `npm install` in ' +
        dirname(dirname(fileURLToPath(import.meta.url))) +
        ', which brings Node 24 along, or install Node 24 or newer from https://nodejs.org.\n',
    );
    process.exitCode = EXIT_MACHINE_LACKS;
  } else {
    reexecute(node);
  }
}
