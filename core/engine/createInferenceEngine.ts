import { superviseProcess, type SpawnProcess, type SupervisedProcess } from '../process/supervise.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { InferenceEngine } from './client.ts';
import {
  fromEngineSchema,
  requests,
  type RequestName,
  type RequestParams,
  type RequestResult,
  type ToEngine,
} from './protocol.ts';

interface Pending {
  name: RequestName;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
  onToken: ((text: string, tokens: number) => void) | undefined;
}

/** All that is long runs beside the engine's event loop; what holds it up so long is a template that never ends. */
export const inferenceSilenceMs = 30_000;

export function createInferenceEngine(
  entry: string,
  spawn: SpawnProcess,
  silenceMs: number = inferenceSilenceMs,
): InferenceEngine {
  let child: SupervisedProcess | null = null;
  let nextId = 1;
  const pending = new Map<number, Pending>();

  function start(): SupervisedProcess {
    const started = superviseProcess({
      entry,
      name: 'caravan engine: inference',
      onMessage,
      spawn,
      silenceMs,
    });
    void started.ended.then(({ exitCode, signal, stderrTail }) => {
      if (child !== started) return;
      child = null;
      const why = signal ?? `exit code ${exitCode ?? 'unknown'}`;
      const line = stderrTail.at(-1);
      failAll(`the engine ended by itself (${why})${line === undefined ? '' : `: ${line}`}`);
    });
    return started;
  }

  function failAll(message: string): void {
    for (const { reject } of pending.values())
      reject(new CaravanError('engine_died', message, { mend: 'Try again: it starts anew.' }));
    pending.clear();
  }

  function onMessage(raw: unknown): void {
    const parsed = fromEngineSchema.safeParse(raw);
    if (!parsed.success || !('id' in parsed.data)) return;
    const message = parsed.data;
    const request = pending.get(message.id);
    if (!request) return;
    if (message.type === 'token') {
      request.onToken?.(message.text, message.tokens);
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
        new CaravanError('internal', `the engine answered ${request.name} in another shape than agreed`),
      );
  }

  function request<N extends RequestName>(
    name: N,
    params: RequestParams<N>,
    onToken?: (text: string, tokens: number) => void,
  ): Promise<RequestResult<N>> {
    return new Promise((resolve, reject) => {
      child ??= start();
      const id = nextId++;
      pending.set(id, { name, resolve: resolve as (result: never) => void, reject, onToken });
      child.send({ type: 'request', id, name, params } satisfies ToEngine);
    });
  }

  return {
    get pid() {
      return child?.pid ?? null;
    },
    generate: (params, onToken) => request('generate', params, onToken),
    cancel: (answerId) => child?.send({ type: 'cancel', answerId } satisfies ToEngine),
    score: (model, tokenizerPath, rows) => request('score', { model, tokenizerPath, rows }),
    route: (model, tokenizerPath, rows, groups) => request('route', { model, tokenizerPath, rows, groups }),
    plan: (options) => request('plan', { options }),
    probe: (options) => request('probe', { options }),
    listCheckpoints: (checkpointDir) => request('listCheckpoints', { checkpointDir }),
    devices: () => request('devices', {}),
    buildInfo: () => request('buildInfo', {}),
    async close() {
      const closing = child;
      child = null;
      failAll('the engine was closed');
      await closing?.close();
    },
  };
}
