export { createHubService } from './createHubService.ts';
export { createPauseGate, type PauseGate } from './pauseGate.ts';
export type { Fetched, Hub, HubCalls, HubDeps, HubService } from './hubTypes.ts';
