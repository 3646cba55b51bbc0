import { randomUUID } from 'node:crypto';
import { createRequestProcess } from '../process/requestProcess.ts';
import type { SpawnProcess } from '../process/supervise.ts';
import type { InferenceEngine } from './client.ts';
import { fromEngineSchema, requests, type ToEngine } from './protocol.ts';

/** All that is long runs beside the engine's event loop; what holds it up so long is a template that never ends. */
export const inferenceSilenceMs = 30_000;

export function createInferenceEngine(
  entry: string,
  spawn: SpawnProcess,
  silenceMs: number = inferenceSilenceMs,
): InferenceEngine {
  const engine = createRequestProcess({
    entry,
    name: 'caravan engine: inference',
    called: 'the engine',
    mend: 'Try again: it starts anew.',
    requests,
    messages: fromEngineSchema,
    spawn,
    silenceMs,
  });
  return {
    get pid() {
      return engine.pid;
    },
    generate: (params, onToken) =>
      engine.request('generate', params, {
        onNews: (news) => {
          if (news.type === 'token') onToken(news.text, news.tokens);
        },
      }),
    cancel: (answerId) => engine.send({ type: 'cancel', answerId } satisfies ToEngine),
    score: (model, tokenizerPath, rows) => engine.request('score', { model, tokenizerPath, rows }),
    route: (model, tokenizerPath, rows, groups) =>
      engine.request('route', { model, tokenizerPath, rows, groups }),
    async export(params, onProgress, signal) {
      const exportId = randomUUID();
      const cancel = () => engine.send({ type: 'cancel', answerId: exportId } satisfies ToEngine);
      signal.addEventListener('abort', cancel, { once: true });
      try {
        return await engine.request(
          'export',
          { ...params, exportId },
          {
            onNews: (news) => {
              if (news.type === 'progress') onProgress(news.stage, news.done, news.total);
            },
          },
        );
      } finally {
        signal.removeEventListener('abort', cancel);
      }
    },
    offerExports: (params) => engine.request('offerExports', params),
    renderPrompt: (params) => engine.request('renderPrompt', params),
    routeTokens: (model, of) => engine.request('routeTokens', { model, of }),
    plan: (options) => engine.request('plan', { options }),
    probe: (options) => engine.request('probe', { options }),
    listCheckpoints: (checkpointDir) => engine.request('listCheckpoints', { checkpointDir }),
    devices: () => engine.request('devices', {}),
    onnxProviders: () => engine.request('onnxProviders', {}),
    cudaStatus: () => engine.request('cudaStatus', {}),
    buildInfo: () => engine.request('buildInfo', {}),
    close: () => engine.close(),
  };
}
