/**
 * The host's end of an engine process: starts it, speaks its protocol, and tells how it ended. A process that dies takes
 * nothing with it but what it was asked to do.
 */
import type { CaravanError } from '../shared/contract/errors.ts';
import type { Answer, Sampling, SpelledToken, TokenRoutes } from '../shared/chat/chat.ts';
import type { Message } from '../shared/dataset/source.ts';
import type { TemplateTokens } from '../shared/dataset/template.ts';
import type { ExportRecord } from '../shared/model/export.ts';
import type { OnnxProvider } from '../shared/model/onnxModel.ts';
import type { RequestParams, RequestResult } from './protocol.ts';
import type {
  BuildInfo,
  CheckpointInfo,
  CudaStatus,
  DeviceInfo,
  EvaluationMetrics,
  OpenModelOptions,
  RouteResult,
  ScoreResult,
  SessionOpened,
  StepMetrics,
  TrainingPlan,
  TrainOptions,
  TrainPhase,
  TrainResult,
} from './AddonTypes.ts';

/** What a training engine tells while it lives. Steps come in batches, in order. */
export interface TrainingListener {
  onPhase(phase: TrainPhase): void;
  /** Bytes of the base model that were read. */
  onLoading(done: number, total: number): void;
  /** The model stands; comes before the first step. */
  onOpened(opened: SessionOpened): void;
  onSteps(steps: StepMetrics[]): void;
  onEvaluation(evaluation: EvaluationMetrics): void;
  onCheckpoint(checkpoint: CheckpointInfo): void;
  onLog(level: 'info' | 'warning', message: string): void;
  /** Lines of the journal that were told by now; see `TrainingEngine.recorded`. */
  onLine?(line: number): void;
}

/** How a training engine ended. `died` means that it did so without being asked to. */
export type TrainingEnd =
  | { kind: 'ended'; result: TrainResult }
  | { kind: 'failed'; error: CaravanError }
  | { kind: 'died'; exitCode: number | null; signal: string | null; stderrTail: string[] };

/** One run in an engine process of its own. */
export interface TrainingEngine {
  readonly pid: number | null;
  pause(): void;
  resume(): void;
  stop(options?: { discard?: boolean }): void;
  /** At once and without asking; `why` becomes the last line of what it wrote. */
  kill(why: string): void;
  /** Says that everything told up to this line is on disk: the journal need not keep it. */
  recorded(line: number): void;
  /** Never rejects. */
  readonly ended: Promise<TrainingEnd>;
}

/** A conversation on its way to tokens. A last message of the assistant is an answer that goes on: it gets no end. */
export interface PromptRequest {
  messages: Message[];
  template: 'camelidae' | 'model';
  tokens: TemplateTokens;
  tokenizerPath: string;
}

export interface GenerateRequest extends PromptRequest {
  model: OpenModelOptions;
  answerId: string;
  sampling: Sampling;
  /** Instead of the messages: a text that is gone on with as it stands, after the tokenizer's own BOS default. */
  text?: string;
  /** Further ids that end an answer (generation_config's `eos_token_id`). */
  stopIds: number[];
}

/** Models for chat, scoring and plans, in an engine process that is started at the first request and again after it died.
 * It keeps the models used last open. */
export interface InferenceEngine {
  readonly pid: number | null;
  /** `onToken` gets what is new of the text, and how many tokens the answer has so far. */
  generate(request: GenerateRequest, onToken: (text: string, tokens: number) => void): Promise<Answer>;
  /** The answer then resolves with stopReason `cancelled` and what it had. */
  cancel(answerId: string): void;
  /** Context and continuation are tokenised together, with the tokenizer's own BOS default. */
  score(
    model: OpenModelOptions,
    tokenizerPath: string,
    rows: { context: string; continuation: string }[],
  ): Promise<(ScoreResult & { ids: number[] })[]>;
  route(
    model: OpenModelOptions,
    tokenizerPath: string,
    rows: { text: string; group: number }[],
    groups: number,
  ): Promise<RouteResult>;
  /** Writes an export and holds it to the run. `signal` ends it, with nothing left behind. */
  export(
    request: Omit<RequestParams<'export'>, 'exportId'>,
    onProgress: (stage: string, done: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<ExportRecord>;
  /** What exports would take, or why they are refused. */
  offerExports(request: RequestParams<'offerExports'>): Promise<RequestResult<'offerExports'>>;
  /** The prompt's tokens as the model sees them. */
  renderPrompt(request: PromptRequest): Promise<SpelledToken[]>;
  /** Which experts each token goes to. */
  routeTokens(
    model: OpenModelOptions,
    of: PromptRequest | { text: string; tokenizerPath: string },
  ): Promise<TokenRoutes>;
  plan(options: TrainOptions): Promise<TrainingPlan>;
  /** One timed step of the longest batch. */
  probe(options: TrainOptions): Promise<{ stepMs: number; tokensPerSecond: number }>;
  listCheckpoints(checkpointDir: string): Promise<CheckpointInfo[]>;
  devices(): Promise<DeviceInfo[]>;
  /** What ONNX Runtime can compute on. @throws `missing_dependency` where it does not load */
  onnxProviders(): Promise<OnnxProvider[]>;
  /** What is there and what is missing for computing on a GPU. */
  cudaStatus(): Promise<CudaStatus>;
  buildInfo(): Promise<BuildInfo>;
  close(): Promise<void>;
}

/** Starts engine processes; injected into services, so that tests can put another in its place. */
export interface Engines {
  /**
   * @param runDir folder that the engine claims for itself (runClaim.ts) and journals into (journal.ts); without one, what it
   * tells is kept nowhere
   */
  startTraining(options: TrainOptions, listener: TrainingListener, runDir?: string): TrainingEngine;
  readonly inference: InferenceEngine;
}

export { journalFile, readJournal, removeJournal, type JournalLine } from './journal.ts';
export { claimRun, engineOf, outliveEngine, releaseRun } from './runClaim.ts';
export { deliver } from './startTraining.ts';
export { createEngines, type EnginesOptions } from './createEngines.ts';
