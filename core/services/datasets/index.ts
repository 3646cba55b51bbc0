export { createDatasetsService } from './createDatasetsService.ts';
export type { DatasetCalls, Datasets, DatasetsDeps, DatasetsService, FoundMix } from './datasetTypes.ts';
