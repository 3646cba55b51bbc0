export { createModelsService } from './createModelsService.ts';
export type {
  ModelCalls,
  Models,
  ModelsDeps,
  ModelsService,
  ResolvedModel,
  TrainedModel,
} from './modelTypes.ts';
