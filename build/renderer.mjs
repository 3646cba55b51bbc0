// Builds the page into out/renderer, unless it is newer than all it is made of. `--force` builds in any case.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { formatSeconds, out, root, runCommand } from './tools.mjs';

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

/** By a walk, not by Git: `caravan serve` works in a bare copy too. */
function newestSource() {
  const files = ['build/vite.config.ts', 'package-lock.json'];
  for (const folder of ['renderer', 'core/shared'])
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true, recursive: true }))
      if (entry.isFile()) files.push(join(entry.parentPath.slice(root.length), entry.name));
  const times = files.map((file) => join(root, file)).filter((path) => existsSync(path));
  return Math.max(0, ...times.map((path) => statSync(path).mtimeMs));
}

if (import.meta.main) process.exitCode = await buildRenderer({ force: process.argv.includes('--force') });
