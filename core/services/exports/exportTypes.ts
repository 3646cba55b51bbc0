import type { Engines } from '../../engine/client.ts';
import type { Clock } from '../../shared/clock.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { Store } from '../../store/openStore.ts';
import type { Jobs } from '../jobs/index.ts';
import type { Models } from '../models/index.ts';

export type ExportCalls = 'exportRun' | 'offerExports' | 'listExports' | 'getExport' | 'readExport';

export interface ExportsDeps {
  store: Store;
  emit: EmitEvent;
  jobs: Jobs;
  models: Models;
  engines: Engines;
  clock?: Clock;
}

export type ExportsService = Service<ExportCalls>;
