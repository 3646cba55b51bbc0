export { createSystemService } from './createSystemService.ts';
export type { SystemCalls, SystemDeps, SystemService } from './systemTypes.ts';
