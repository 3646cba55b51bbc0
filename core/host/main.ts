// The host's process, started by connect.ts and on its own from then on. `node core/host/main.ts` in a terminal works too.
import { hostProcess } from './hostProcess.ts';
import { openServices } from './openServices.ts';

await hostProcess(openServices);
