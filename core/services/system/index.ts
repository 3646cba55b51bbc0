export { createStorageService, type Trashed } from './createStorageService.ts';
export { createSystemService } from './createSystemService.ts';
export { findCudaTools, missingCuda } from './cudaChecks.ts';
export type { SystemCalls, SystemDeps, SystemService } from './systemTypes.ts';
