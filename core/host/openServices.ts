import { join } from 'node:path';
import { createDataProcess } from '../data/client.ts';
import { createEngines } from '../engine/createEngines.ts';
import { createHubProcess } from '../hub/client.ts';
import { forkProcess, type SpawnProcess } from '../process/supervise.ts';
import { runTables } from '../services/training/index.ts';
import type { EmitEvent } from '../shared/contract/service.ts';
import { DamagedDatabase, openStore, type Store } from '../store/openStore.ts';
import { closeInTurn, composeServices, type Services } from './composeServices.ts';
import { version } from './version.ts';

/**
 * Opens what the services stand on (the database; the processes start when they are first asked) and the services.
 * @param endedUncleanly the last host did not close the database
 * @param spawn how the processes are started: Node's fork, or Electron's utility process
 */
export async function openServices(
  home: string,
  endedUncleanly: boolean,
  emit: EmitEvent,
  spawn: SpawnProcess = forkProcess,
): Promise<Services> {
  const open = (suspect: boolean) =>
    openStore({ file: join(home, 'caravan.db'), endedUncleanly: suspect, indexTables: runTables });
  const data = createDataProcess(undefined, spawn);
  const hubProcess = createHubProcess(undefined, spawn);
  const engines = createEngines({ spawn });
  const compose = (store: Store) =>
    composeServices({ home, version, store, data, hubProcess, engines, emit });
  let store = await open(endedUncleanly);
  let services: Services;
  try {
    services = compose(store);
  } catch (error) {
    if (!(error instanceof DamagedDatabase)) throw error;
    // Every page is looked at where there is reason to; the services were the first to meet this one.
    await store.close();
    store = await open(true);
    services = compose(store);
  }
  return {
    ...services,
    notes: store.notes,
    async close() {
      await closeInTurn([
        () => services.close(),
        () => engines.inference.close(),
        () => data.close(),
        () => hubProcess.close(),
        () => store.close(),
      ]);
    },
  };
}
