import type { SystemDeps, SystemService } from './systemTypes.ts';

export function createSystemService(_deps: SystemDeps): SystemService {
  throw new Error('landed with the next change');
}
