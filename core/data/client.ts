import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CaravanError } from '../shared/contract/errors.ts';
import {
  fromDataSchema,
  requests,
  type DataProgress,
  type RequestName,
  type RequestParams,
  type RequestResult,
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
  resolve: (result: never) => void;
  reject: (error: Error) => void;
  onProgress: ((progress: DataProgress) => void) | undefined;
}

const stderrLines = 50;

export function createDataProcess(entry = fileURLToPath(new URL('main.ts', import.meta.url))): DataProcess {
  let child: ChildProcess | null = null;
  let nextId = 1;
  const pending = new Map<number, Pending>();

  function start(): ChildProcess {
    const started = fork(entry, [], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    });
    const stderr: string[] = [];
    started.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr.push(...text.split('\n').filter((line) => line.trim() !== ''));
      stderr.splice(0, stderr.length - stderrLines);
    });
    started.on('message', onMessage);
    started.on('exit', (code, signal) => {
      if (child === started) child = null;
      const why = signal ? `signal ${signal}` : `code ${code}`;
      for (const request of pending.values())
        request.reject(
          new CaravanError(
            'engine_died',
            `the data process ended (${why})${stderr.length > 0 ? `: ${stderr[0]}` : ''}`,
            {
              mend: 'Nothing half-written is kept; try again.',
            },
          ),
        );
      pending.clear();
    });
    return started;
  }

  function onMessage(raw: unknown): void {
    const parsed = fromDataSchema.safeParse(raw);
    if (!parsed.success || parsed.data.type === 'ready') return;
    const message = parsed.data;
    const request = pending.get(message.id);
    if (!request) return;
    if (message.type === 'progress') {
      request.onProgress?.(message.progress);
      return;
    }
    pending.delete(message.id);
    if (message.type === 'error') {
      const { code, message: text, place, mend } = message.error;
      request.reject(new CaravanError(code, text, { ...(place && { place }), ...(mend && { mend }) }));
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
        child ??= start();
        const id = nextId++;
        pending.set(id, { name, resolve: resolve as (result: never) => void, reject, onProgress });
        signal?.addEventListener('abort', () => child?.send({ type: 'cancel', id }), { once: true });
        child.send({ type: 'request', id, name, params });
      });
    },
    close() {
      const closing = child;
      child = null;
      if (!closing || closing.exitCode !== null || closing.signalCode !== null) return Promise.resolve();
      return new Promise((resolve) => {
        const force = setTimeout(() => closing.kill('SIGKILL'), 2000);
        closing.once('exit', () => {
          clearTimeout(force);
          resolve();
        });
        closing.disconnect();
      });
    },
  };
}
