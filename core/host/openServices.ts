import { join } from 'node:path';
import { createDataProcess } from '../data/client.ts';
import { createEngines } from '../engine/createEngines.ts';
import { createHubProcess } from '../hub/client.ts';
import type { EmitEvent } from '../shared/contract/service.ts';
import { openStore } from '../store/openStore.ts';
import { closeInTurn, composeServices, type Services } from './composeServices.ts';
import { version } from './version.ts';

/**
 * Opens what the services stand on (the database; the processes start when they are first asked) and the services.
 * @param endedUncleanly the last host did not close the database
 */
export async function openServices(
  home: string,
  endedUncleanly: boolean,
  emit: EmitEvent,
): Promise<Services> {
  const store = await openStore({ file: join(home, 'caravan.db'), endedUncleanly });
  const data = createDataProcess();
  const hubProcess = createHubProcess();
  const engines = createEngines();
  const services = composeServices({ home, version, store, data, hubProcess, engines, emit });
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
