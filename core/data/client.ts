import { fileURLToPath } from 'node:url';
import { createRequestProcess } from '../process/requestProcess.ts';
import { forkProcess, type SpawnProcess } from '../process/supervise.ts';
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

/** A row's template is rendered on the event loop; one that never ends must not keep a mix waiting for ever. */
const silenceMs = 120_000;

/** A request that was cancelled may take so long to notice; then its process is ended. */
const defaultCancelGraceMs = 10_000;

export function createDataProcess(
  entry = fileURLToPath(new URL('main.ts', import.meta.url)),
  spawn: SpawnProcess = forkProcess,
  cancelGraceMs = defaultCancelGraceMs,
): DataProcess {
  const data = createRequestProcess({
    entry,
    name: 'caravan data',
    called: 'the data process',
    mend: 'Nothing half-written is kept; try again.',
    requests,
    messages: fromDataSchema,
    spawn,
    silenceMs,
    cancelGraceMs,
  });
  return {
    get pid() {
      return data.pid;
    },
    request: (name, params, { onProgress, signal } = {}) =>
      data.request(name, params, { signal, onNews: ({ progress }) => onProgress?.(progress) }),
    close: () => data.close(),
  };
}
