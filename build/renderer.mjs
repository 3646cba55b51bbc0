// Builds the page into out/renderer, unless it is newer than all it is made of. `--force` builds in any case.
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { formatSeconds, out, projectFiles, root, runCommand } from './tools.mjs';

/** @returns {Promise<number>} the exit code of Vite, 0 where nothing was to do */
export async function buildRenderer({ force = false } = {}) {
  const page = join(out, 'renderer/index.html');
  if (!force && existsSync(page) && statSync(page).mtimeMs > newestSource()) return 0;
  const started = Date.now();
  const { code, output } = await runCommand('vite', ['build', '--config', 'build/vite.config.ts'], {
    quiet: true,
  });
  process.stderr.write(
    code === 0 ? `Workbench page built (${formatSeconds(Date.now() - started)}).\n` : output,
  );
  return code;
}

function newestSource() {
  const sources = projectFiles('renderer', 'core/shared', 'build/vite.config.ts', 'package-lock.json');
  return Math.max(0, ...sources.map((file) => statSync(join(root, file)).mtimeMs));
}

if (import.meta.main) process.exitCode = await buildRenderer({ force: process.argv.includes('--force') });
