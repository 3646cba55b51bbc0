import { join } from 'node:path';
import type * as Ort from 'onnxruntime-node';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { OnnxArchitecture, OnnxProviderName } from '../../shared/model/onnxModel.ts';
import type { Runtime } from './runtime.ts';

/** Keys and values of one conversation. */
export interface KeyValueCache {
  /** Positions that it has room for. */
  readonly capacity: number;
  /** Tokens read. */
  length: number;
  readonly feeds: Record<string, Ort.Tensor>;
  /** Where ONNX Runtime writes: on the CPU the tensors of `feeds` themselves. */
  readonly fetches: Record<string, Ort.Tensor | null>;
}

/** A prompt is read in pieces of so many tokens: each gives logits of all its positions, and lets others have a turn. */
const pieceTokens = 128;

/** One graph, opened on one provider. */
export class GraphSession {
  readonly provider: OnnxProviderName;
  readonly #architecture: OnnxArchitecture;
  readonly #runtime: Runtime;
  readonly #session: Ort.InferenceSession;
  /** Outputs stay where they were computed, and are the next step's inputs. */
  readonly #onDevice: boolean;

  private constructor(
    runtime: Runtime,
    session: Ort.InferenceSession,
    architecture: OnnxArchitecture,
    provider: OnnxProviderName,
  ) {
    this.#runtime = runtime;
    this.#session = session;
    this.#architecture = architecture;
    this.provider = provider;
    this.#onDevice = provider === 'webgpu';
  }

  /** @throws `bad_file` where ONNX Runtime refuses the graph, or it is not one of an export */
  static async open(
    runtime: Runtime,
    dir: string,
    file: string,
    architecture: OnnxArchitecture,
    provider: OnnxProviderName,
  ): Promise<GraphSession> {
    const path = join(dir, file);
    const names = cacheNames(architecture);
    const session = await runtime.InferenceSession.create(path, {
      executionProviders: provider === 'cpu' ? ['cpu'] : [provider, 'cpu'],
      logSeverityLevel: 3,
      ...(provider === 'webgpu' && {
        preferredOutputLocation: Object.fromEntries(
          names.map(({ present }) => [present, 'gpu-buffer' as const]),
        ),
      }),
    }).catch((error: unknown) => {
      throw new CaravanError('bad_file', `ONNX Runtime does not open it: ${(error as Error).message}`, {
        place: { file: path },
        mend: 'Export the model again with this version.',
      });
    });
    const inputs = ['input_ids', 'attention_mask', ...names.map(({ past }) => past)];
    const outputs = ['logits', ...names.map(({ present }) => present)];
    const differing =
      inputs.find((name) => !session.inputNames.includes(name)) ??
      session.inputNames.find((name) => !inputs.includes(name)) ??
      outputs.find((name) => !session.outputNames.includes(name));
    if (differing !== undefined) {
      await session.release();
      throw new CaravanError('bad_file', `is no graph of an export: '${differing}' is missing or too many`, {
        place: { file: path },
      });
    }
    return new GraphSession(runtime, session, architecture, provider);
  }

  createCache(capacity: number): KeyValueCache {
    const { numKvHeads, headDim } = this.#architecture;
    const positions = this.#onDevice ? 0 : capacity;
    const cache: KeyValueCache = { capacity, length: 0, feeds: {}, fetches: {} };
    for (const { past, present } of cacheNames(this.#architecture)) {
      const tensor = new this.#runtime.Tensor('float32', new Float32Array(numKvHeads * positions * headDim), [
        1,
        numKvHeads,
        positions,
        headDim,
      ]);
      cache.feeds[past] = tensor;
      cache.fetches[present] = this.#onDevice ? null : tensor;
    }
    return cache;
  }

  closeCache(cache: KeyValueCache): void {
    if (this.#onDevice) for (const tensor of Object.values(cache.feeds)) tensor.dispose();
  }

  /** Reads further tokens of a conversation. @returns (tokens, vocab) logits */
  async read(cache: KeyValueCache, ids: Int32Array): Promise<Float32Array<ArrayBuffer>> {
    const { Tensor } = this.#runtime;
    const total = cache.length + ids.length;
    if (total > cache.capacity) throw new CaravanError('internal', 'a conversation outgrew its cache');
    const feeds = {
      ...cache.feeds,
      input_ids: new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]),
      attention_mask: new Tensor('int64', new BigInt64Array(total).fill(1n), [1, total]),
    };
    const results = await this.#session
      .run(feeds, { ...cache.fetches, logits: null })
      .catch((error: unknown) => {
        throw new CaravanError(
          'bad_file',
          `ONNX Runtime could not run the graph: ${(error as Error).message}`,
        );
      });
    cache.length = total;
    if (this.#onDevice)
      for (const { past, present } of cacheNames(this.#architecture)) {
        cache.feeds[past]!.dispose();
        cache.feeds[past] = results[present] as Ort.Tensor;
      }
    const logits = results['logits']!.data as Float32Array<ArrayBuffer>;
    if (logits.length !== ids.length * this.#architecture.vocabSize)
      throw new CaravanError('bad_file', 'the graph gives logits of another size than its vocabulary');
    return logits;
  }

  /**
   * Reads tokens piece by piece.
   * @param onPiece logits of each piece; may return false, which ends the reading
   * @returns whether it read all
   */
  async readAll(
    cache: KeyValueCache,
    ids: Int32Array,
    onPiece: (logits: Float32Array<ArrayBuffer>, first: number) => boolean,
  ): Promise<boolean> {
    for (let first = 0; first < ids.length; first += pieceTokens) {
      const logits = await this.read(cache, ids.subarray(first, first + pieceTokens));
      if (!onPiece(logits, first)) return false;
    }
    return true;
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

function cacheNames({ numLayers }: OnnxArchitecture): { past: string; present: string }[] {
  return Array.from({ length: numLayers }, (_, layer) =>
    ['key', 'value'].map((what) => ({
      past: `past_key_values.${layer}.${what}`,
      present: `present.${layer}.${what}`,
    })),
  ).flat();
}
