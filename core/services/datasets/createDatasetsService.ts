import type { DatasetsDeps, DatasetsService } from './datasetTypes.ts';

export function createDatasetsService(_deps: DatasetsDeps): DatasetsService {
  throw new Error('landed with the next change');
}
