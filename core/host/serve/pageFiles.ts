import { createReadStream } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { extname, isAbsolute, join, relative, sep } from 'node:path';

/** What the page is made of; anything else in its folder is not served. */
export const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.webp': 'image/webp',
  '.woff2': 'font/woff2',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.txt': 'text/plain; charset=utf-8',
};

/**
 * The file below `root` that a request's path names, `index.html` for `/` and for the page's own routes (a path whose last
 * part has no ending). @returns null for what is malformed or not there; `bad` for what tries to get out.
 */
export async function findPageFile(root: string, urlPath: string): Promise<string | 'bad' | null> {
  let path: string;
  try {
    path = decodeURIComponent(urlPath);
  } catch {
    return 'bad';
  }
  // Encoded separators and dots were decoded just now: what is hidden in them shows itself here.
  if (
    path.includes('\0') ||
    path.includes('\\') ||
    path.split('/').some((part) => part === '..' || part === '.')
  )
    return 'bad';
  // A device or stream name of Windows, and a second round of encoding, have no business in a file of the page.
  if (/[:%]/.test(path)) return 'bad';
  const ending = extname(path);
  const wanted = ending === '' ? 'index.html' : `.${path}`;
  if (ending !== '' && !Object.hasOwn(contentTypes, ending)) return null;
  try {
    const [realRoot, file] = await Promise.all([realpath(root), realpath(join(root, wanted))]);
    const inside = relative(realRoot, file);
    // A link that leads out of the folder is followed to nowhere.
    if (inside === '' || inside.startsWith(`..${sep}`) || inside === '..' || isAbsolute(inside)) return 'bad';
    return file;
  } catch {
    return null;
  }
}

/** Sends a file that `findPageFile` found. Built names carry a hash of their content, index.html does not. */
export async function sendPageFile(
  file: string,
  response: ServerResponse,
  headers: Readonly<Record<string, string>>,
  options: { isHead: boolean },
): Promise<void> {
  const handle = await open(file, 'r');
  let size: number;
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new Error('not a file');
    size = stat.size;
  } finally {
    await handle.close();
  }
  const hashed = file.includes(`${sep}assets${sep}`);
  response.writeHead(200, {
    ...headers,
    'Content-Type': contentTypes[extname(file)]!,
    'Content-Length': size,
    'Cache-Control': hashed ? 'private, max-age=31536000, immutable' : 'no-cache',
  });
  if (options.isHead || size === 0) {
    response.end();
    return;
  }
  const stream = createReadStream(file, { end: size - 1 });
  stream.on('error', () => response.destroy());
  stream.pipe(response);
}
