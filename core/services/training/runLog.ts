import { open } from 'node:fs/promises';

/** Of a log this much is looked at for its last lines. */
const logTailBytes = 1 << 20;

export async function lastLines(file: string): Promise<string[]> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (!handle) return [];
  try {
    const { size } = await handle.stat();
    const from = Math.max(0, size - logTailBytes);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - from), 0, size - from, from);
    const lines = buffer.toString('utf8', 0, bytesRead).split('\n');
    if (from > 0) lines.shift();
    return lines.filter((line) => line !== '');
  } finally {
    await handle.close();
  }
}
