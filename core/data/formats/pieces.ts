import type { Readable } from 'node:stream';

/** Thrown while a file is read, after everything that came before the damage. */
export class DamagedFile extends Error {}

/**
 * A stream's pieces, to the last before an error: Node's own iterator drops what was buffered when the error came, and how
 * much that is depends on timing.
 */
export async function* pieces(stream: Readable): AsyncGenerator<Buffer> {
  let failure: Error | undefined;
  let wake = () => {};
  stream.on('error', (error) => (failure ??= error));
  for (const event of ['readable', 'end', 'close', 'error']) stream.on(event, () => wake());
  for (;;) {
    const woken = new Promise<void>((resolve) => (wake = resolve));
    const piece = stream.read() as Buffer | null;
    if (piece !== null) yield piece;
    else if (failure !== undefined) throw failure;
    else if (stream.readableEnded || stream.destroyed) return;
    else await woken;
  }
}
