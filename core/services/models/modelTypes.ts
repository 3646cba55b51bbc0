import type { DataProcess } from '../../data/client.ts';
import type { Clock } from '../../shared/clock.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { TemplateTokens } from '../../shared/dataset/template.ts';
import type { Model } from '../../shared/model/model.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { Store } from '../../store/openStore.ts';
import type { Hub } from '../hub/index.ts';
import type { Jobs } from '../jobs/index.ts';

export type ModelCalls =
  | 'addModel'
  | 'previewModel'
  | 'listModels'
  | 'getModel'
  | 'inspectModel'
  | 'removeModel'
  | 'trashModel'
  | 'restoreModel'
  | 'listModelTrash'
  | 'tokenize'
  | 'describeTokenizer'
  | 'spellText'
  | 'renderConversation';

export interface ModelsDeps {
  store: Store;
  /** Copies lie below it. */
  home: string;
  emit: EmitEvent;
  jobs: Jobs;
  data: DataProcess;
  hub: Hub;
  /** The model that a run made: by run id, unique start of one, name, or the folder of a run or checkpoint; null where
   * the reference is none of these. The training service's `trainedModel`, bound late because it needs the models. */
  trainedModel: (ref: string) => Promise<TrainedModel | null>;
  clock?: Clock;
}

/** What a run trained, as the training service knows it. */
export interface TrainedModel {
  runId: string;
  runName: string;
  /** Folder or GGUF file of the base model. */
  modelDir: string;
  /** Hash of its tensors when the run began; null where it never did. */
  baseIdentity: string | null;
  /** Newest checkpoint, or the one that was asked for. */
  checkpointDir: string;
  config: RunConfig;
  template: 'camelidae' | 'model';
}

/** A model reference, looked up. */
export interface ResolvedModel {
  /** As shown to people. */
  name: string;
  /** Null for a path that is not in the library. */
  model: Model | null;
  /** Folder or GGUF file of the (base) model. */
  dir: string;
  tokenizerPath: string;
  tokens: TemplateTokens;
  /** Ids that end an answer, by generation_config.json, config.json and the tokenizer. */
  stopIds: number[];
  /** Set where the reference names a run or its checkpoint. */
  trained: TrainedModel | null;
  /** Set where it names the folder of an adapter (PEFT's LoRA, or one that was exported) over this base. */
  adapterDir?: string;
}

/** For the other services. */
export interface Models {
  /**
   * A name or id in the library, `run:<id or name>`, a run's id or name, or a path; in this order.
   * @throws `not_found`, saying what was tried; `bad_file` where the path is no model.
   */
  resolve(ref: string): Promise<ResolvedModel>;
  /** SHA-256 over all tensors of a model; remembered as long as its files keep size and time. */
  identityOf(
    dir: string,
    onProgress?: (done: number, total: number | null) => void,
    signal?: AbortSignal,
  ): Promise<string>;
  /** SHA-256 of tokenizer.json or GGUF file, remembered likewise. */
  tokenizerHash(tokenizerPath: string): Promise<string>;
  /** Reads configuration and headers. */
  inspect(dir: string): Promise<Omit<Model, 'id' | 'addedAt'>>;
}

export interface ModelsService extends Service<ModelCalls> {
  readonly models: Models;
}
