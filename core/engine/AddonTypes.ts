/**
 * The whole native surface: what `caravan.node` exports. The engine and data processes alone load it.
 *
 * Conventions: every function that can take longer than a millisecond returns a promise and runs off the JavaScript
 * thread; a rejected promise carries an `Error` whose `code` is one of the contract's error codes. Options are checked
 * once, at the call; an unknown or missing field rejects (or throws, where there is no promise) with code `bad_option` and
 * names the field. What is disposed throws `wrong_state` when it is used; disposing twice does nothing. Sizes are bytes,
 * times milliseconds, positions count from 0, ends are exclusive.
 */

import type { OnnxArchitecture } from '../shared/model/onnxModel.ts';
import type { Device } from '../shared/run/device.ts';

export interface Addon {
  buildInfo(): BuildInfo;
  /** The devices this build can compute on. The CPU is always the first. Takes no GPU memory. */
  devices(): Promise<DeviceInfo[]>;
  /** What there is of NVIDIA's on this machine, and what is missing where `devices` names no GPU. Takes no GPU memory. */
  cudaStatus(): Promise<CudaStatus>;
  /**
   * @param path tokenizer.json or a GGUF file
   * @throws code `bad_file` or `tokenizer_invalid`, naming the field that is wrong.
   */
  openTokenizer(path: string): Promise<AddonTokenizer>;
  /** SHA-256 of a file, as lower-case hex, read in the background. */
  hashFile(path: string): Promise<string>;
  /** SHA-256 over names, types, shapes and bytes of all tensors of a model folder or GGUF file, sorted by name: the
   * model's identity, however its files are cut. */
  hashModel(path: string, onProgress?: (progress: Progress) => void): Promise<string>;
  /** Reads config.json and the tensor headers of a folder, or the metadata of a GGUF file, alone. */
  inspectModel(path: string): Promise<ModelSummary>;
  /** Reads the header of one safetensors file. */
  inspectSafetensors(path: string): Promise<{ tensors: TensorSummary[]; metadata: Record<string, string> }>;
  /** What templates and chats need of a GGUF file's tokenizer. @throws code `bad_file` or `tokenizer_invalid`. */
  inspectGgufTokenizer(path: string): Promise<GgufTokenizerSummary>;
  /** Writes one token shard (see {@link TokenShard}); bytes depend on the arguments alone. */
  writeTokenShard(path: string, shard: TokenShard): Promise<void>;
  readTokenShardInfo(path: string): Promise<TokenShardInfo>;
  /** Rows of a shard, for the window that shows what a step saw. */
  readTokenShardRows(path: string, rows: number[]): Promise<TokenShardRow[]>;
  /** Row numbers in the order in which `epoch` (from 0) visits them: a pure function of its arguments. */
  rowOrder(seed: number, epoch: number, rows: number): Int32Array;
  /** A search for near-duplicates by MinHash and locality-sensitive hashing. */
  createNearDuplicates(options: NearDuplicateOptions): Promise<AddonNearDuplicates>;
  /** A search for stretches of known texts (a benchmark's items) in others. */
  createOverlapSearch(options: OverlapOptions): Promise<AddonOverlapSearch>;
  openModel(options: OpenModelOptions): Promise<AddonModel>;
  /** What an export will take, from headers and manifests alone. @throws code `bad_option` where the layout cannot hold the
   * model, naming one that can. */
  planExport(options: ExportOptions): Promise<{ bytes: number; tensors: number }>;
  /** Fills `outDir`, reads it again and holds it to the model that was trained: every tensor, and the logits of `rows`
   * (token ids of prompts). `onProgress` may return false, which ends it with code `cancelled`. */
  exportModel(
    options: ExportOptions,
    rows: Int32Array[],
    onProgress: (stage: string, done: number, total: number) => boolean,
  ): Promise<ExportedModel>;
  /** What a graph for ONNX Runtime is made from, from headers and manifests alone. @throws code `bad_option` as `planExport`. */
  describeOnnxExport(options: ExportOptions): Promise<OnnxArchitecture>;
  /** Writes the numbers of a graph to `path`, reads them again, and computes what the graph must give for `rows`. */
  exportOnnx(
    options: ExportOptions,
    tensors: OnnxTensor[],
    path: string,
    rows: Int32Array[],
    onProgress: (stage: string, done: number, total: number) => boolean,
  ): Promise<OnnxReference>;
  /** Rows of (tokens, vocab) of both. @throws code `bad_file` where a logit is no number */
  compareLogits(reference: Float32Array[], other: Float32Array[], vocab: number): Promise<LogitComparison>;
  /** An answer whose logits are computed elsewhere: the same sampling, stopping and text as {@link AddonModel.generate}'s.
   * @throws code `bad_option` */
  createAnswer(options: GenerateOptions, vocabSize: number, contextLength: number): AddonAnswer;
  /** Loads nothing heavy yet: {@link AddonTrainer.start} does. */
  createTrainer(options: TrainOptions, listener: TrainListener): AddonTrainer;
  /** Memory by item, parameters by group, steps; loads headers only. */
  planTraining(options: TrainOptions): Promise<TrainingPlan>;
  /** Loads, and times one step of the longest batch. */
  probeTraining(options: TrainOptions): Promise<{ stepMs: number; tokensPerSecond: number }>;
  /** Every checkpoint below a run's `checkpoints` folder, newest first, with whether it verifies. */
  listCheckpoints(checkpointDir: string): Promise<CheckpointInfo[]>;
}

export interface BuildInfo {
  version: string;
  buildId: string;
  compiler: string;
  cuda: boolean;
  /** SIMD variants compiled in, and the one that this processor runs. */
  simd: { built: string[]; used: string };
}

export interface DeviceInfo {
  /** As options name it. */
  device: Device;
  kind: 'cpu' | 'cuda';
  name: string;
  /** Logical cores, or streaming multiprocessors. */
  units: number;
  totalMemoryBytes: number;
  /** Null for a GPU whose driver does not tell (no NVML). */
  freeMemoryBytes: number | null;
  computeCapability?: string;
  driverVersion?: string;
}

/** Versions of CUDA are written as "13.0". */
export interface CudaStatus {
  /** This build holds CUDA kernels. */
  built: boolean;
  /** They were compiled for: "90a", "80-real"; empty where not built. */
  architectures: string[];
  /** The CUDA that the driver must know for this build; null where not built. */
  neededCuda: string | null;
  /** The newest CUDA that the driver knows; null: there is no driver. */
  driverCuda: string | null;
  /** Null without NVML. */
  driverVersion: string | null;
  /** Why no GPU can be used; null where one can. */
  unavailable: string | null;
  devices: CudaDevice[];
  /** Without it matrix products run on kernels of ours, slower. */
  cublaslt: LibraryStatus;
  /** Without it nothing is known of a GPU's free memory, load, power and temperature. */
  nvml: LibraryStatus;
}

export interface CudaDevice {
  name: string;
  computeCapability: string;
  /** This build holds code that runs on it. */
  hasCode: boolean;
  totalMemoryBytes: number;
  freeMemoryBytes: number | null;
}

/** A library that is looked for at run time: found, with both, or the reason why not. */
export interface LibraryStatus {
  path: string | null;
  version: string | null;
  missing: string | null;
}

export interface Progress {
  done: number;
  total: number;
  unit: string;
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokenizer

export interface AddonTokenizer {
  readonly vocabSize: number;
  /** What the tokenizer's own post-processor adds by default. */
  readonly addsBos: boolean;
  readonly addsEos: boolean;
  /** The ids that it adds; null where it adds none. */
  readonly bosId: number | null;
  readonly eosId: number | null;
  /** Ids of the text alone: no BOS, EOS or template. Text is never turned into a special token by being spelled like
   * one unless `parseSpecial`. @throws code `invalid_utf8` for lone surrogates. */
  encode(text: string, options?: { parseSpecial?: boolean }): Int32Array;
  /** Many texts on several threads, order kept: `ids` of text i are [offsets[i], offsets[i + 1]). */
  encodeBatch(
    texts: string[],
    options?: { parseSpecial?: boolean; threads?: number },
  ): Promise<{ ids: Int32Array; offsets: Float64Array }>;
  decode(ids: Int32Array | number[], options?: { skipSpecial?: boolean }): string;
  tokenToId(token: string): number | null;
  idToToken(id: number): string | null;
  isSpecial(id: number): boolean;
  dispose(): void;
}

// ---------------------------------------------------------------------------------------------------------------------
// Near-duplicates

/** Words are runs of letters, digits and marks in lower case (an ideograph or kana is one by itself); a shingle is
 * `ngram` words in a row, or the whole text where it has fewer. */
export interface NearDuplicateOptions {
  ngram: number;
  permutations: number;
  /** Bands of `floor(permutations / bands)` minima; left out: the number that errs least at `threshold`. */
  bands?: number;
  /** Rows are alike at this Jaccard similarity of their shingles, or above. */
  threshold: number;
  /** Of the permutations. */
  seed: number;
  /** 0: one per core. No result depends on it. */
  threads?: number;
}

/** Every row is added, then the texts of the candidates are loaded, group by group, and judged. One call at a time. */
export interface AddonNearDuplicates {
  readonly bands: number;
  readonly rowsPerBand: number;
  /** Rows are numbered from 0 in the order of all calls; `8 * bands` bytes of each are kept. */
  add(texts: string[]): Promise<void>;
  /** Rows that share a band with another, by connected group: [offsets[g], offsets[g + 1]) of `rows`. */
  findCandidates(): Promise<{ rows: Int32Array; offsets: Int32Array }>;
  /** The texts of candidates once more: 8 bytes a shingle are kept until `verify`. */
  load(rows: Int32Array, texts: string[]): Promise<void>;
  /** Judges the groups that are loaded, all rows of each, and lets them go. @throws `wrong_state` where one is missing */
  verify(): Promise<NearDuplicateRows>;
  dispose(): void;
}

/** Rows to leave out, one an element. Of a cluster, which is what alike candidates connect, the first row stays. */
export interface NearDuplicateRows {
  rows: Int32Array;
  /** The row of its cluster that stays, and the exact Jaccard similarity to it. */
  kept: Int32Array;
  jaccard: Float64Array;
  /** `kept` where that is alike, else the first row of the cluster that is. */
  linked: Int32Array;
  linkedJaccard: Float64Array;
}

// ---------------------------------------------------------------------------------------------------------------------
// Overlap with benchmarks

/** Words as for near-duplicates. */
export interface OverlapOptions {
  /** Words in a row that count. */
  ngram: number;
  /** Shorter parts count as a whole, down to so many words; below that only where a text consists of them. */
  floor: number;
  /** 0: one per core. No result depends on it. */
  threads?: number;
}

/** Parts are added, then texts scanned. One call at a time. */
export interface AddonOverlapSearch {
  /** Parts are numbered from 0 in the order of all calls. Resolves to the words of each. */
  add(parts: string[]): Promise<Int32Array>;
  /** Every part that a text repeats, by text and part. */
  scan(texts: string[]): Promise<OverlapsFound>;
  dispose(): void;
}

export interface OverlapsFound {
  texts: Int32Array;
  parts: Int32Array;
  /** 1 where the text is the part and nothing else. */
  equal: Int32Array;
  /** Words of the part that lie in n-grams in common, and of the longest stretch that they form. */
  covered: Int32Array;
  longest: Int32Array;
}

// ---------------------------------------------------------------------------------------------------------------------
// Files

export interface TensorSummary {
  name: string;
  dtype: string;
  shape: number[];
}

export interface GgufTokenizerSummary {
  /** Null where the tokenizer has none. */
  bos: string | null;
  eos: string | null;
  specials: string[];
  /** Jinja. */
  chatTemplate: string | null;
  stopIds: Int32Array;
}

export interface ModelSummary {
  architecture: string;
  /** llama, mistral, qwen2, qwen3. */
  family: string;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  vocabSize: number;
  maxPositions: number;
  ropeTheta: number;
  ropeScaling: string | null;
  slidingWindow: number | null;
  tiedEmbeddings: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  qkNorm: boolean;
  normEps: number;
  parameters: {
    embedding: number;
    attention: number;
    mlp: number;
    norms: number;
    head: number;
    total: number;
  };
  /** Of a sparse model; `adapterDim` is null where its experts are whole FFNs. `parameters` includes the routers. */
  experts?: {
    count: number;
    topK: number;
    adapterDim: number | null;
    adapterScale: number;
    parameters: number;
  };
  storedDtypes: string[];
  fileBytes: number;
}

export interface TokenShard {
  /** Concatenated rows. */
  ids: Int32Array;
  /** rows + 1 entries. */
  offsets: Float64Array;
  /** One per token: 1 where the token is a target. */
  targets: Uint8Array;
  /** One per row: index into `sources`. */
  source: Int32Array;
  sources: string[];
  /** Written as they are into the file's metadata (tokenizer hash, template, split). */
  metadata: Record<string, string>;
}

export interface TokenShardInfo {
  rows: number;
  tokens: number;
  targetTokens: number;
  longestRow: number;
  sources: { name: string; rows: number; tokens: number; targetTokens: number }[];
  metadata: Record<string, string>;
}

export interface TokenShardRow {
  row: number;
  source: string;
  ids: Int32Array;
  targets: Uint8Array;
}

export interface CheckpointInfo {
  step: number;
  path: string;
  bytes: number;
  /** Null when it verifies, else what is wrong with it. */
  problem: string | null;
}

// ---------------------------------------------------------------------------------------------------------------------
// Inference

export interface OpenModelOptions {
  /** Folder with config.json and safetensors, or a GGUF file. */
  modelDir: string;
  baseDtype: 'f32' | 'bf16' | 'nf4';
  computeDtype: 'f32' | 'bf16';
  doubleQuant?: boolean;
  /** A checkpoint folder (`step-000123`) whose LoRA, adapters and routers are applied, unmerged; a `full` or `upcycle`
   * checkpoint replaces the weights. */
  checkpointDir?: string;
  threads?: number;
  /** Where it computes; `cpu` by default. */
  device?: Device;
}

export interface AddonModel {
  readonly summary: ModelSummary;
  readonly numExperts: number;
  readonly topK: number;
  readonly memoryBytes: number;
  /** Streams: `onToken` is called once per new token, on the JavaScript thread, in order. Resolves at the end. Several
   * may run at once, each under an id of its own. An exception of `onToken` ends the generation and is what the promise
   * rejects with. Disposing the model cancels what is under way. */
  generate(options: GenerateOptions, onToken: (token: GeneratedToken) => void): Promise<GenerateResult>;
  /** Ends the generation with this id at its next token. */
  cancel(generationId: string): void;
  /** Log-probabilities of each row's ids from `firstScored[i]` on, given what stands before. */
  score(rows: Int32Array[], firstScored: number[]): Promise<ScoreResult[]>;
  /** Which experts each row's tokens chose; rows carry a group number (a source, say) below `groups`. */
  route(rows: Int32Array[], group: number[], groups: number): Promise<RouteResult>;
  /** Which experts each token of one row chose in each layer. */
  routeTokens(row: Int32Array): Promise<TokenRoutes>;
  /** Logits (tokens, vocab) of every position of one row; for tests and parity. */
  logits(row: Int32Array): Promise<Float32Array>;
  dispose(): void;
}

export interface GenerateOptions {
  generationId: string;
  /** The whole prompt, BOS and template included. */
  promptIds: Int32Array;
  maxTokens: number;
  /** 0: greedy. */
  temperature: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  /** Ids that end the answer; the one hit is the last of `ids`. */
  stopIds: number[];
  /** Strings that end the answer; needs `tokenizer`. */
  stopStrings?: string[];
  tokenizer: AddonTokenizer;
  /** Also report the experts of each token. */
  reportExperts?: boolean;
}

export interface AddonAnswer {
  /** @param logits of one position; unchanged. @throws `wrong_state` after the last token */
  next(logits: Float32Array): { id: number; text: string; logprob: number; stopReason: StopReason | null };
}

export interface GeneratedToken {
  id: number;
  /** Text that became complete with this token (may be empty inside a multi-byte character). */
  text: string;
  logprob: number;
  /** (layers x topK) experts and weights, when asked for. */
  experts?: Int32Array;
  expertWeights?: Float32Array;
}

export type StopReason = 'eos' | 'stop_string' | 'length' | 'context' | 'cancelled';

export interface GenerateResult {
  ids: Int32Array;
  text: string;
  stopReason: StopReason;
  promptTokens: number;
  promptMs: number;
  generateMs: number;
  tokensPerSecond: number;
}

export interface ScoreResult {
  logprob: number;
  tokenLogprobs: Float64Array;
  /** Whether every scored id was the arg-max. */
  greedy: boolean;
}

export interface RouteResult {
  layers: number;
  experts: number;
  groups: number;
  /** (groups, layers, experts): tokens that chose the expert first, second, and in any slot. */
  first: Float64Array;
  second: Float64Array;
  any: Float64Array;
  /** Tokens per group. */
  tokens: Float64Array;
}

export interface TokenRoutes {
  layers: number;
  experts: number;
  topK: number;
  /** (tokens, layers, topK): each token's experts, best first, and their weights. */
  chosen: Int32Array;
  weights: Float32Array;
}

// ---------------------------------------------------------------------------------------------------------------------
// Export

export type ExportLayout =
  'peft' | 'adapter' | 'merged' | 'camelidae' | 'qwen2idae' | 'sparsetral' | 'mixtral' | 'gguf' | 'onnx';
export type ExportType = 'f32' | 'bf16' | 'f16' | 'q8_0' | 'q4_0' | 'int4';

export interface ExportOptions {
  modelDir: string;
  /** A checkpoint, or the folder of an adapter; of `onnx` alone also '': the base as it is. */
  checkpointDir: string;
  /** How the run kept its base. */
  baseDtype: 'f32' | 'bf16' | 'nf4';
  doubleQuant: boolean;
  layout: ExportLayout;
  /** Of layouts that hold the whole model; adapters keep the type they were trained in. */
  type: ExportType;
  /** Merge into the base as its files have it, not as the run kept it. */
  originalBase: boolean;
  /** Is there and empty. */
  outDir: string;
  shardBytes: number;
  /** What an adapter says of its base. */
  baseName: string;
  baseIdentity: string;
  /** Of the file in `outDir`; `gguf` alone. */
  ggufFile: string;
  ggufName: string;
  /** tokenizer.json or a GGUF file; `gguf` alone. */
  tokenizerPath: string;
  /** Jinja, or empty; `gguf` alone. */
  chatTemplate: string;
  /** Ids that end an answer, EOS first. */
  eosIds: number[];
  threads?: number;
}

/** A matrix of the model in the file beside a graph: rows of all parts on top of each other. */
export interface OnnxTensor {
  name: string;
  /** int4 and int8: blocks of 32 of a row share a scale (f32); x = (code - zero) * scale. The rope's: no part's numbers. */
  form: 'f32' | 'f16' | 'int4' | 'int8' | 'rope_cos' | 'rope_sin';
  /** In the file; of the codes where there are such. Tensors come in the order of their offsets. */
  offset: number;
  scalesOffset?: number;
  zerosOffset?: number;
  /** The rows are cut into so many matrices, each of which is transposed where `transposed`. */
  batch: number;
  transposed: boolean;
  parts: OnnxTensorPart[];
}

export interface OnnxTensorPart {
  /** Hugging Face's name, or a trained parameter's. */
  name: string;
  parameter: boolean;
  rows: number;
  cols: number;
}

export interface OnnxReference {
  parity: Pick<ExportParity, 'reference' | 'tensors' | 'unusedExperts'>;
  /** (tokens, vocab) of each row: what the file's numbers must give. */
  logits: Float32Array[];
  /** Of the run as trained, where that is another model. */
  trained: Float32Array[] | null;
}

export interface ExportedModel {
  files: { name: string; bytes: number }[];
  parity: ExportParity;
}

/** How two models' logits differ over the same tokens. */
export interface LogitComparison {
  tokens: number;
  maxDifference: number;
  meanDifference: number;
  /** Mean over tokens of KL(reference || export), nats; and the largest. */
  kl: number;
  maxKl: number;
  /** Tokens whose largest logit is the same one. */
  sameChoice: number;
  /** Tokens whose two best logits lie further apart than `maxDifference`, and those of them that choose otherwise. */
  decided: number;
  decidedOtherwise: number;
}

/** One tensor of the file: what had to hold of it, its largest |file - checkpoint|, and how many elements break the rule. */
export interface ComparedTensor {
  name: string;
  rule: 'copied' | 'merged' | 'quantised';
  elements: number;
  difference: number;
  wrong: number;
}

export interface ExportParity {
  passed: boolean;
  /** What had to hold, in words. */
  limit: string;
  /** What the logits were compared with: the run as trained; the same on its base as stored; the very weights that a
   * quantised file must hold. */
  reference: 'trained' | 'original_base' | 'dequantised';
  logits: LogitComparison;
  /** The export against the run as trained, where `reference` is another. */
  loss: LogitComparison | null;
  tensors: {
    tensors: number;
    elements: number;
    copied: number;
    merged: number;
    quantised: number;
    /** Largest |file - checkpoint| before any cast, and where. */
    maxDifference: number;
    maxTensor: string;
    /** What is missing, too many, or differs. */
    wrong: string[];
    each: ComparedTensor[];
  };
  /** Got no token of the prompts. */
  unusedExperts: { layer: number; expert: number }[];
}

// ---------------------------------------------------------------------------------------------------------------------
// Training

export type Method = 'pesc' | 'lora' | 'full' | 'upcycle';

export interface TrainOptions {
  modelDir: string;
  trainShard: string;
  validationShard?: string;
  /** Folder that receives `step-000123` folders. */
  checkpointDir: string;
  /** Continue from this checkpoint folder; everything else must equal the run's first options. */
  resumeFrom?: string;

  method: Method;
  baseDtype: 'f32' | 'bf16' | 'nf4';
  doubleQuant: boolean;
  computeDtype: 'f32' | 'bf16';
  trainDtype: 'f32' | 'bf16';

  loraRank: number;
  loraAlpha: number;
  loraDropout: number;
  numExperts: number;
  topK: number;
  adapterDim: number;
  adapterDropout: number;
  adapterScale: number;
  /** alpha of the balance loss; 0 turns it off. */
  balanceCoefficient: number;

  /** Conversations per optimizer step. */
  batchSize: number;
  /** Bins of `seqLen` per micro-batch. */
  microBatchSize: number;
  seqLen: number;
  packing: boolean;
  epochs: number;
  /** Ends earlier than `epochs` when given. */
  maxSteps?: number;

  lr: number;
  schedule: 'constant' | 'linear' | 'cosine';
  warmupRatio: number;
  /** `paged_…` keeps the state in host memory, with the same bits. */
  optimizer: 'adamw' | 'adamw8bit' | 'paged_adamw' | 'paged_adamw8bit';
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** 0: no clipping. */
  maxGradNorm: number;
  recompute: boolean;
  /** Of so many layers, the first ones; left out: all. */
  recomputeLayers?: number;

  seed: number;
  /** 0: only before the first and after the last step. */
  evalSteps: number;
  /** 0: only after the last step. */
  saveSteps: number;
  keepCheckpoints: number;
  /** 0: one per core. */
  threads: number;
  device: Device;
  /** Strings that go into each checkpoint's manifest: hashes of base model and mix. */
  identity: Record<string, string>;
}

/** Called on the JavaScript thread, in order; nothing is lost: a trainer that is far ahead of a busy thread waits for it. */
export interface TrainListener {
  /** loading, probing, evaluating, training, saving, paused, finished. */
  onPhase(phase: TrainPhase): void;
  /** Bytes of the base model's files that were read, a few times a second. */
  onLoading(done: number, total: number): void;
  /** When the model stands, before the first step. */
  onOpened(opened: SessionOpened): void;
  onStep(metrics: StepMetrics): void;
  onEvaluation(evaluation: EvaluationMetrics): void;
  onCheckpoint(checkpoint: CheckpointInfo): void;
  onLog(level: 'info' | 'warning', message: string): void;
}

export type TrainPhase = 'loading' | 'evaluating' | 'training' | 'saving' | 'paused' | 'finished';

export interface AddonTrainer {
  /** Loads, trains and resolves when the run has ended: finished, or stopped with a checkpoint. Rejects on failure
   * with `diverged`, `disk_full`, `out_of_memory`, `bad_file`, `bad_option`, ... */
  start(): Promise<TrainResult>;
  /** Takes effect between micro-batches. */
  pause(): void;
  resume(): void;
  /** Finishes the step under way, writes a checkpoint (unless `discard`) and lets `start()` resolve. */
  stop(options?: { discard?: boolean }): void;
  readonly state: 'idle' | 'running' | 'paused' | 'stopping' | 'ended' | 'failed' | 'disposed';
  /** Ends a run under way without a checkpoint; its `start()` rejects with `cancelled`. */
  dispose(): void;
}

/** Of a resumed run, as measured at its first start. */
export interface SessionOpened {
  /** max |logit difference| between the crafted model at step 0 and the same stored base. */
  stepZeroDifference: number;
  /** max |logit difference| between the stored base and its unquantised weights, when the base is quantised. */
  quantizationDifference: number | null;
}

export interface TrainResult extends SessionOpened {
  reason: 'finished' | 'stopped';
  step: number;
  totalSteps: number;
  /** Newest checkpoint. */
  checkpoint: string | null;
}

export interface StepMetrics {
  step: number;
  totalSteps: number;
  epoch: number;
  /** Cross entropy per target token; NaN or infinite when the step was skipped. */
  loss: number;
  lossBySource: { source: string; loss: number; targetTokens: number }[];
  balanceLoss: number;
  balanceGradNorm: number;
  lr: number;
  gradNorm: number;
  skipped: boolean;
  tokens: number;
  targetTokens: number;
  paddingTokens: number;
  stepMs: number;
  tokensPerSecond: number;
  memoryBytes: number;
  /** (layers x experts) share of the step's assignments; empty without experts. */
  expertShares: Float32Array;
  /** Row numbers of the training shard that this step saw, and each row's mean loss. */
  rows: Int32Array;
  rowLosses: Float32Array;
}

export interface EvaluationMetrics {
  step: number;
  loss: number;
  bySource: { source: string; loss: number; targetTokens: number; rows: number }[];
  evaluationMs: number;
}

export interface TrainingPlan {
  parameters: {
    base: number;
    lora: number;
    adapters: number;
    routers: number;
    trainable: number;
    total: number;
  };
  /** Where the run computes: on a GPU all that it holds there, the driver's own included. */
  memory: { item: string; bytes: number }[];
  totalMemoryBytes: number;
  /** What a run on a GPU takes of the machine's own memory; 0 on the CPU, where `memory` is all. */
  hostMemoryBytes: number;
  checkpointBytes: number;
  rows: number;
  steps: number;
  warmupSteps: number;
  /** From one timed step of the longest batch, where the plan was asked to probe; else null. */
  probe: { stepMs: number; tokensPerSecond: number } | null;
}
