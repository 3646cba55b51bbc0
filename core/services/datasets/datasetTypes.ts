import type { DataProcess } from '../../data/client.ts';
import type { Clock } from '../../shared/clock.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { Mix } from '../../shared/dataset/recipe.ts';
import type { Store } from '../../store/openStore.ts';
import type { Hub } from '../hub/index.ts';
import type { Jobs } from '../jobs/index.ts';
import type { Models } from '../models/index.ts';
import type { LookCalls } from './looking.ts';
import type { PreviewCalls } from './previewing.ts';

export type DatasetCalls =
  | LookCalls
  | PreviewCalls
  | 'exportMix'
  | 'compareMixes'
  | 'trashDataset'
  | 'restoreDataset'
  | 'listTrash'
  | 'importSource'
  | 'listSources'
  | 'getSource'
  | 'readSourceRows'
  | 'readSourceRejects'
  | 'removeSource'
  | 'buildMix'
  | 'listMixes'
  | 'getMix'
  | 'readMixRows'
  | 'removeMix';

export interface DatasetsDeps {
  store: Store;
  /** The home folder: sources/ and mixes/ below it are this service's. */
  home: string;
  emit: EmitEvent;
  jobs: Jobs;
  data: DataProcess;
  hub: Hub;
  models: Models;
  clock?: Clock;
}

/** A built mix with what training needs of its manifest. */
export interface FoundMix {
  /** `id` is the folder's path where the mix is not in the library. */
  mix: Mix;
  /** SHA-256 of the tokenizer.json that the shards were made with; null for a mix that holds text alone. */
  tokenizerHash: string | null;
  trainShard: string | null;
  validationShard: string | null;
  /** Hashes that the manifest names, by file relative to the mix's folder. */
  files: Record<string, string>;
}

/** For the other services. */
export interface Datasets {
  /** By id, name, or folder. @throws `not_found`; `bad_file` where a folder is no mix. */
  findMix(ref: string): Promise<FoundMix>;
}

export interface DatasetsService extends Service<DatasetCalls> {
  readonly datasets: Datasets;
}
