import type { Addon, AddonModel, GenerateResult, ScoreResult } from '../../engine/AddonTypes.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { graphFile, type OnnxArchitecture, type OnnxProvider } from '../../shared/model/onnxModel.ts';
import { readOnnxFolder } from '../format/readOnnxFolder.ts';
import { GraphSession } from './GraphSession.ts';
import { chooseSession } from './chooseSession.ts';
import type { Runtime } from './runtime.ts';

/** What a chat asks of a model, whatever computes it. */
export type ChatModel = Pick<
  AddonModel,
  'generate' | 'cancel' | 'score' | 'route' | 'routeTokens' | 'logits' | 'dispose'
>;

export interface OpenOnnxOptions {
  runtime: Runtime;
  /** What was found here; the graph runs on the fastest that computes as the CPU does. */
  providers: readonly OnnxProvider[];
  addon: Pick<Addon, 'createAnswer'>;
  /** Another graph of the folder. @default model.onnx */
  file?: string;
}

/** Opens the folder of an export. @throws `not_found`, `bad_file` */
export async function openOnnxModel(dir: string, options: OpenOnnxOptions): Promise<ChatModel> {
  const { architecture } = (await readOnnxFolder(dir)).metadata;
  const { runtime, providers, file = graphFile } = options;
  const session = await chooseSession(providers, (provider) =>
    GraphSession.open(runtime, dir, file, architecture, provider),
  );
  return serveSession(session, architecture, options.addon);
}

function serveSession(
  session: GraphSession,
  { vocabSize, contextLength }: OnnxArchitecture,
  addon: Pick<Addon, 'createAnswer'>,
): ChatModel {
  /** Answers under way that are to end. */
  const cancelled = new Map<string, boolean>();
  let disposed = false;

  async function withCache<R>(
    capacity: number,
    use: (cache: ReturnType<GraphSession['createCache']>) => Promise<R>,
  ): Promise<R> {
    if (disposed) throw new CaravanError('wrong_state', 'this model is disposed');
    const cache = session.createCache(capacity);
    try {
      return await use(cache);
    } finally {
      session.closeCache(cache);
    }
  }

  function checkRow(row: Int32Array, index: number): void {
    if (row.length === 0 || row.length > contextLength)
      throw new CaravanError(
        'bad_option',
        `rows[${index}] has ${row.length} tokens; the model reads 1 to ${contextLength}`,
      );
    const strange = row.find((id) => id < 0 || id >= vocabSize);
    if (strange !== undefined)
      throw new CaravanError(
        'bad_option',
        `rows[${index}]: the id ${strange} is not in the model's vocabulary of ${vocabSize}`,
      );
  }

  const noRoutes = () =>
    Promise.reject(
      new CaravanError('bad_option', 'an ONNX graph does not say which experts it chose', {
        mend: 'Name the run that it was exported from: run:RUN.',
      }),
    );

  return {
    async generate(options, onToken): Promise<GenerateResult> {
      const { generationId, promptIds, maxTokens } = options;
      const answer = addon.createAnswer(options, vocabSize, contextLength);
      const isCancelled = () => disposed || cancelled.get(generationId) === true;
      cancelled.set(generationId, false);
      try {
        return await withCache(Math.min(contextLength, promptIds.length + maxTokens), async (cache) => {
          const began = performance.now();
          let logits = new Float32Array(0);
          const whole = await session.readAll(cache, promptIds, (piece) => {
            logits = piece.subarray(piece.length - vocabSize);
            return !isCancelled();
          });
          const answering = performance.now();
          const ids: number[] = [];
          let text = '';
          let stopReason = whole ? null : ('cancelled' as GenerateResult['stopReason'] | null);
          while (stopReason === null) {
            const token = answer.next(logits);
            ids.push(token.id);
            text += token.text;
            onToken({ id: token.id, text: token.text, logprob: token.logprob });
            stopReason = token.stopReason ?? (isCancelled() ? 'cancelled' : null);
            if (stopReason === null) logits = await session.read(cache, Int32Array.of(token.id));
          }
          const generateMs = performance.now() - answering;
          return {
            ids: Int32Array.from(ids),
            text,
            stopReason,
            promptTokens: promptIds.length,
            promptMs: answering - began,
            generateMs,
            // Of the tokens after the first, which the prompt's pass pays for.
            tokensPerSecond: ids.length > 1 && generateMs > 0 ? ((ids.length - 1) / generateMs) * 1000 : 0,
          };
        });
      } finally {
        cancelled.delete(generationId);
      }
    },
    cancel(generationId) {
      if (cancelled.has(generationId)) cancelled.set(generationId, true);
    },
    async score(rows, firstScored): Promise<ScoreResult[]> {
      rows.forEach(checkRow);
      const results: ScoreResult[] = [];
      for (const [index, row] of rows.entries()) {
        const from = firstScored[index]!;
        if (from < 1 || from > row.length)
          throw new CaravanError('bad_option', `firstScored[${index}] is ${from}, outside of its row`);
        const tokenLogprobs = new Float64Array(row.length - from);
        let greedy = true;
        await withCache(row.length, (cache) =>
          session.readAll(cache, row, (logits, first) => {
            for (let at = 0; at * vocabSize < logits.length; at++) {
              const next = first + at + 1;
              if (next < from || next >= row.length) continue;
              const found = logProbability(logits.subarray(at * vocabSize, (at + 1) * vocabSize), row[next]!);
              tokenLogprobs[next - from] = found.logprob;
              greedy &&= found.isBest;
            }
            return !disposed;
          }),
        );
        results.push({ logprob: tokenLogprobs.reduce((sum, each) => sum + each, 0), tokenLogprobs, greedy });
      }
      return results;
    },
    async logits(row) {
      checkRow(row, 0);
      const all = new Float32Array(row.length * vocabSize);
      await withCache(row.length, (cache) =>
        session.readAll(cache, row, (logits, first) => {
          all.set(logits, first * vocabSize);
          return !disposed;
        }),
      );
      return all;
    },
    route: noRoutes,
    routeTokens: noRoutes,
    dispose() {
      if (disposed) return;
      disposed = true;
      // A step under way ends first: it holds the thread that this runs on.
      void session.release();
    },
  };
}

/** log softmax at `id`, in double precision, and whether no other id has a larger logit. */
function logProbability(logits: Float32Array, id: number): { logprob: number; isBest: boolean } {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  const largest = logits[best]!;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return { logprob: logits[id]! - largest - Math.log(sum), isBest: best === id };
}
