export { createTrainingService } from './createTrainingService.ts';
export { runTables } from './runTable.ts';
export type { Training, TrainingCalls, TrainingDeps, TrainingService } from './trainingTypes.ts';
