/** The thread that reads at length, so that the host's own thread never waits. */
import { parentPort, workerData } from 'node:worker_threads';
import Database from 'better-sqlite3';
import type { ReadReply, ReadRequest } from './reader.ts';

const { file } = workerData as { file: string };
const database = new Database(file, { readonly: true, timeout: 5000 });

/** One number of a blob of little-endian f32; NULL outside it or where it is not finite. */
database.function('f32_at', { deterministic: true }, (blob: unknown, index: unknown) => {
  if (!(blob instanceof Uint8Array) || typeof index !== 'number' || (index + 1) * 4 > blob.byteLength)
    return null;
  const value = new DataView(blob.buffer, blob.byteOffset).getFloat32(index * 4, true);
  return Number.isFinite(value) ? value : null;
});

const statements = new Map<string, Database.Statement>();

function checkpoint(): void {
  const writer = new Database(file, { timeout: 5000 });
  try {
    writer.pragma('wal_checkpoint(PASSIVE)');
  } finally {
    writer.close();
  }
}

parentPort!.on('message', (request: ReadRequest) => {
  const { id } = request;
  try {
    if ('checkpoint' in request) {
      checkpoint();
      parentPort!.postMessage({ id, rows: [] } satisfies ReadReply);
      return;
    }
    const { sql, params } = request;
    let statement = statements.get(sql);
    if (!statement) {
      statement = database.prepare(sql);
      statements.set(sql, statement);
    }
    parentPort!.postMessage({ id, rows: statement.all(params as unknown[]) } satisfies ReadReply);
  } catch (error) {
    parentPort!.postMessage({ id, error: (error as Error).message } satisfies ReadReply);
  }
});
