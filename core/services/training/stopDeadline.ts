/** A run that was asked to stop and says nothing more is hung: its trainer looks for the request between two steps. */
import type { TrainPhase } from '../../engine/AddonTypes.ts';

/** Of the attempt so far; 0 where there was none yet. */
export interface Pace {
  phase: TrainPhase | null;
  longestStepMs: number;
  longestEvaluationMs: number;
}

/** Two steps: a small one may be held up by the disk or by other programs. */
const betweenStepsMs = 120_000;
/** Loading a model, evaluating and writing a checkpoint say nothing meanwhile, however large they are. */
const longSilenceMs = 900_000;

/** How long the engine may say nothing once it was asked to stop. */
export function stopPatienceMs({ phase, longestStepMs, longestEvaluationMs }: Pace): number {
  if (phase === 'training' && longestStepMs > 0) return Math.max(betweenStepsMs, 3 * longestStepMs);
  return Math.max(longSilenceMs, 3 * longestEvaluationMs, 3 * longestStepMs);
}

export interface StopDeadline {
  /** From now on silence counts. */
  start(): void;
  /** The engine said something. */
  heard(): void;
  clear(): void;
}

export function createStopDeadline(
  patienceMs: () => number,
  onOverdue: (silentMs: number) => void,
): StopDeadline {
  let timer: ReturnType<typeof setTimeout> | undefined;

  function start(): void {
    clearTimeout(timer);
    const silentMs = patienceMs();
    timer = setTimeout(() => onOverdue(silentMs), silentMs);
    timer.unref();
  }

  return {
    start,
    heard() {
      if (timer !== undefined) start();
    },
    clear() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}
