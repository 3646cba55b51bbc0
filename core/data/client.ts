import { fileURLToPath } from 'node:url';
import {
  forkProcess,
  superviseProcess,
  type SpawnProcess,
  type SupervisedProcess,
} from '../process/supervise.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import {
  fromDataSchema,
  requests,
  type DataProgress,
  type RequestName,
  type RequestParams,
  type RequestResult,
  type ToData,
} from './protocol.ts';

export interface DataRequestOptions {
  onProgress?: (progress: DataProgress) => void;
  signal?: AbortSignal;
}

/** The host's end of the data process: starts it at the first request and again after it died. */
export interface DataProcess {
  request<N extends RequestName>(
    name: N,
    params: RequestParams<N>,
    options?: DataRequestOptions,
  ): Promise<RequestResult<N>>;
  readonly pid: number | null;
  close(): Promise<void>;
}

interface Pending {
  name: RequestName;
  params: unknown;
  signal: AbortSignal | undefined;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
  onProgress: ((progress: DataProgress) => void) | undefined;
}

/** A row's template is rendered on the event loop; one that never ends must not keep a mix waiting for ever. */
const silenceMs = 120_000;

/** A request that was cancelled may take so long to notice; then its process is ended. */
const cancelGraceMs = 10_000;

export function createDataProcess(
  entry = fileURLToPath(new URL('main.ts', import.meta.url)),
  spawn: SpawnProcess = forkProcess,
  graceMs = cancelGraceMs,
): DataProcess {
  let child: SupervisedProcess | null = null;
  let nextId = 1;
  const pending = new Map<number, Pending>();

  function start(): SupervisedProcess {
    const started = superviseProcess({ entry, name: 'caravan data', onMessage, spawn, silenceMs });
    void started.ended.then(({ exitCode, signal, stderrTail }) => {
      if (child !== started) return;
      child = null;
      const why = signal ? `signal ${signal}` : `code ${exitCode ?? 'unknown'}`;
      failAll(`the data process ended (${why})${stderrTail.length > 0 ? `: ${stderrTail[0]}` : ''}`);
    });
    return started;
  }

  function failAll(message: string): void {
    for (const request of pending.values())
      request.reject(
        new CaravanError('engine_died', message, { mend: 'Nothing half-written is kept; try again.' }),
      );
    pending.clear();
  }

  /** Ends the process under a request that does not react, and asks again for what else it was at. */
  async function force(id: number): Promise<void> {
    const stuck = child;
    if (!stuck || !pending.has(id)) return;
    const asked = [...pending];
    child = null;
    stuck.kill();
    await stuck.ended;
    for (const [other, request] of asked) {
      if (!pending.has(other)) continue;
      if (request.signal?.aborted) {
        pending.delete(other);
        request.reject(
          new CaravanError(
            'cancelled',
            `${request.name} did not stop within ${graceMs / 1000} s: its process was ended and is started again; nothing half-written is kept`,
          ),
        );
      } else ask(other, request);
    }
  }

  function ask(id: number, { name, params }: Pending): void {
    child ??= start();
    child.send({ type: 'request', id, name, params } satisfies ToData);
  }

  function onMessage(raw: unknown): void {
    const parsed = fromDataSchema.safeParse(raw);
    if (!parsed.success || parsed.data.type === 'beat') return;
    const message = parsed.data;
    const request = pending.get(message.id);
    if (!request) return;
    if (message.type === 'progress') {
      request.onProgress?.(message.progress);
      return;
    }
    pending.delete(message.id);
    if (message.type === 'error') {
      request.reject(CaravanError.fromData(message.error));
      return;
    }
    const result = requests[request.name].result.safeParse(message.result);
    if (result.success) request.resolve(result.data as never);
    else
      request.reject(
        new CaravanError(
          'internal',
          `the data process answered ${request.name} in another shape than agreed`,
        ),
      );
  }

  return {
    get pid() {
      return child?.pid ?? null;
    },
    request(name, params, options = {}) {
      return new Promise((resolve, reject) => {
        const { signal, onProgress } = options;
        if (signal?.aborted) {
          reject(new CaravanError('cancelled', `${name} was cancelled`));
          return;
        }
        const id = nextId++;
        const request = {
          name,
          params,
          signal,
          resolve: resolve as (result: never) => void,
          reject,
          onProgress,
        };
        pending.set(id, request);
        signal?.addEventListener(
          'abort',
          () => {
            if (!pending.has(id)) return;
            child?.send({ type: 'cancel', id } satisfies ToData);
            setTimeout(() => void force(id), graceMs).unref();
          },
          { once: true },
        );
        ask(id, request);
      });
    },
    async close() {
      const closing = child;
      child = null;
      failAll('the data process was closed');
      await closing?.close();
    },
  };
}
