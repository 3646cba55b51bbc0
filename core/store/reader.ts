import { Worker } from 'node:worker_threads';
import { CaravanError } from '../shared/contract/errors.ts';
import type { SqlParams } from './Store.ts';

export type ReadRequest = { id: number; sql: string; params: SqlParams } | { id: number; checkpoint: true };

export type ReadReply = { id: number; rows: unknown[] } | { id: number; error: string };

/** Long reads on a thread of their own. */
export interface Reader {
  query<R>(sql: string, params: SqlParams): Promise<R[]>;
  /** Brings the write-ahead log into the file, as far as nobody reads it. One at a time; asking during one is nothing. */
  checkpoint(): void;
  close(): Promise<void>;
}

export function createReader(file: string): Reader {
  let worker: Worker | null = null;
  let nextId = 1;
  const open = new Map<number, { resolve: (rows: never) => void; reject: (error: Error) => void }>();

  function fail(reason: string): void {
    worker = null;
    for (const { reject } of open.values())
      reject(new CaravanError('internal', `the database reader ended: ${reason}`));
    open.clear();
  }

  function start(): Worker {
    const started = new Worker(new URL('readerThread.ts', import.meta.url), { workerData: { file } });
    started.unref();
    started.on('message', (reply: ReadReply) => {
      const request = open.get(reply.id);
      open.delete(reply.id);
      if ('rows' in reply) request?.resolve(reply.rows as never);
      else request?.reject(new CaravanError('internal', `the database refused a read: ${reply.error}`));
    });
    started.on('error', (error) => fail(String(error)));
    started.on('exit', () => {
      if (worker === started) fail('its thread is gone');
    });
    return started;
  }

  function ask(request: (id: number) => ReadRequest): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      worker ??= start();
      const id = nextId++;
      open.set(id, { resolve: resolve as (rows: never) => void, reject });
      worker.postMessage(request(id));
    });
  }

  let checkpointing = false;
  // Now, while nobody waits: a thread takes longer to start than a read may take.
  worker = start();
  return {
    query: <R>(sql: string, params: SqlParams) => ask((id) => ({ id, sql, params })) as Promise<R[]>,
    checkpoint() {
      if (checkpointing) return;
      checkpointing = true;
      void ask((id) => ({ id, checkpoint: true }))
        .catch(() => undefined)
        .finally(() => (checkpointing = false));
    },
    async close() {
      const closing = worker;
      fail('the database was closed');
      await closing?.terminate();
    },
  };
}
