import type { ModelsDeps, ModelsService } from './modelTypes.ts';

export function createModelsService(_deps: ModelsDeps): ModelsService {
  throw new Error('landed with the next change');
}
