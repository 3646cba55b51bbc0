import { Worker } from 'node:worker_threads';
import { CaravanError } from '../shared/contract/errors.ts';
import type { SqlParams } from './Store.ts';

export interface ReadRequest {
  id: number;
  sql: string;
  params: SqlParams;
}

export type ReadReply = { id: number; rows: unknown[] } | { id: number; error: string };

/** Long reads on a thread of their own, started at the first of them. */
export interface Reader {
  query<R>(sql: string, params: SqlParams): Promise<R[]>;
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

  return {
    query(sql, params) {
      return new Promise((resolve, reject) => {
        worker ??= start();
        const id = nextId++;
        open.set(id, { resolve: resolve as (rows: never) => void, reject });
        worker.postMessage({ id, sql, params } satisfies ReadRequest);
      });
    },
    async close() {
      const closing = worker;
      fail('the database was closed');
      await closing?.terminate();
    },
  };
}
