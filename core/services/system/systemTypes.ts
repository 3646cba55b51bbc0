import type { DataProcess } from '../../data/client.ts';
import type { Engines } from '../../engine/client.ts';
import type { Service } from '../../shared/contract/service.ts';

export type SystemCalls = 'doctor' | 'systemStatus';

export interface SystemDeps {
  home: string;
  /** Caravan's version. */
  version: string;
  /** SQLite's version: the store's. */
  sqliteVersion: string;
  data: DataProcess;
  engines: Engines;
  hubProcess: { readonly pid: number | null };
  /** Engine processes that train: the training service's `processes`. */
  trainingProcesses: () => { name: string; pid: number }[];
}

export type SystemService = Service<SystemCalls>;
