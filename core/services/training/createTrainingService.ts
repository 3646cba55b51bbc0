import type { TrainingDeps, TrainingService } from './trainingTypes.ts';

export function createTrainingService(_deps: TrainingDeps): TrainingService {
  throw new Error('landed with the next change');
}
