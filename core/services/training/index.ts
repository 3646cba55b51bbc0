export { createTrainingService } from './createTrainingService.ts';
export type { Training, TrainingCalls, TrainingDeps, TrainingService } from './trainingTypes.ts';
