import type { HubProcess } from '../../hub/client.ts';
import type { Service } from '../../shared/contract/service.ts';
import type { HubAccess, HubKind, HubPlan } from '../../shared/hub/hubReference.ts';
import type { JobContext } from '../jobs/index.ts';
import type { PauseGate } from './pauseGate.ts';

export type HubCalls = 'hubStatus' | 'setHubToken' | 'inspectHub';

export interface HubDeps {
  /** hub/ and host/hub-token below it are this service's. */
  home: string;
  process: HubProcess;
  env?: Record<string, string | undefined>;
  /** Where Hugging Face's own programs look for what is theirs. */
  userHome?: string;
}

/** What was downloaded. */
export interface Fetched {
  plan: HubPlan;
  /** Absolute paths, in the order of their names. */
  files: string[];
}

/** For the other services. */
export interface Hub {
  /** Downloads what a reference stands for, or finds it here; logs what and how much. @throws as the hub process says */
  fetch(
    what: { kind: HubKind; reference: string; access: HubAccess | undefined },
    context: JobContext,
    gate?: PauseGate,
  ): Promise<Fetched>;
  /** Deletes what was downloaded to a place; what lies elsewhere is left alone. */
  forget(path: string): Promise<void>;
}

export interface HubService extends Service<HubCalls> {
  readonly hub: Hub;
}
