// Where npm put the Node 24 that package.json pins. Kept to what any Node since 12.20 understands: the command and the
// install script look for it from an older one.
import { existsSync } from 'fs';
import { dirname, join } from 'path';
import { fileURLToPath } from 'url';

/** @returns {string | undefined} its full path, if npm installed it for this platform */
export function pinnedNode() {
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  const binary = join('bin', process.platform === 'win32' ? 'node.exe' : 'node');
  const checkout = dirname(dirname(fileURLToPath(import.meta.url)));
  const path = join(checkout, 'node_modules', `node-${platform}-${process.arch}`, binary);
  return existsSync(path) ? path : undefined;
}
