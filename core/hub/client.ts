import { fileURLToPath } from 'node:url';
import { createRequestProcess } from '../process/requestProcess.ts';
import { forkProcess, type SpawnProcess } from '../process/supervise.ts';
import {
  fromHubSchema,
  requests,
  type RequestName,
  type RequestParams,
  type RequestResult,
} from './protocol.ts';

export interface HubRequestOptions {
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** The host's end of the hub process, which alone speaks to the network. It is started at the first request. */
export interface HubProcess {
  request<N extends RequestName>(
    name: N,
    params: RequestParams<N>,
    options?: HubRequestOptions,
  ): Promise<RequestResult<N>>;
  readonly pid: number | null;
  close(): Promise<void>;
}

/** It waits for the network without blocking: a process that says nothing for so long hangs. */
const silenceMs = 60_000;
const cancelGraceMs = 5000;

export function createHubProcess(
  entry = fileURLToPath(new URL('main.ts', import.meta.url)),
  spawn: SpawnProcess = forkProcess,
): HubProcess {
  const hub = createRequestProcess({
    entry,
    name: 'caravan hub',
    called: 'the hub process',
    mend: 'What was downloaded is kept; start it again.',
    requests,
    messages: fromHubSchema,
    spawn,
    silenceMs,
    cancelGraceMs,
  });
  return {
    get pid() {
      return hub.pid;
    },
    request: (name, params, { onProgress, signal } = {}) =>
      hub.request(name, params, { signal, onNews: ({ done, total }) => onProgress?.(done, total) }),
    close: () => hub.close(),
  };
}
