import { CaravanError } from '../shared/contract/errors.ts';
import type { Addon, AddonTrainer, StepMetrics, TrainOptions } from './AddonTypes.ts';
import type { FromEngine } from './protocol.ts';

/** One run, from the engine's side. */
export interface ServedTraining {
  pause(): void;
  resume(): void;
  stop(discard: boolean): void;
  /** Resolves when the run has ended and that is told. Never rejects. */
  readonly ended: Promise<void>;
}

/** Steps wait for one another so long, so that a fast run does not send a message for each. */
const stepsBatchMs = 100;

export function serveTraining(
  addon: Addon,
  options: TrainOptions,
  send: (message: FromEngine) => Promise<void>,
): ServedTraining {
  let waiting: StepMetrics[] = [];
  let timer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (waiting.length === 0) return;
    void send({ type: 'steps', steps: waiting });
    waiting = [];
  }

  /** What is told after a step arrives after it. */
  function tell(message: FromEngine): Promise<void> {
    flush();
    return send(message);
  }

  async function run(): Promise<void> {
    try {
      const result = await trainer!.start();
      await tell({ type: 'ended', result });
    } catch (error) {
      await tell({ type: 'failed', error: CaravanError.from(error).toData() });
    }
  }

  let trainer: AddonTrainer | null = null;
  let ended: Promise<void>;
  try {
    trainer = addon.createTrainer(options, {
      onPhase: (phase) => void tell({ type: 'phase', phase }),
      onStep(metrics) {
        waiting.push(metrics);
        timer ??= setTimeout(flush, stepsBatchMs);
      },
      onEvaluation: (evaluation) => void tell({ type: 'evaluation', evaluation }),
      onCheckpoint: (checkpoint) => void tell({ type: 'checkpoint', checkpoint }),
      onLog: (level, message) => void tell({ type: 'log', level, message }),
    });
    ended = run();
  } catch (error) {
    ended = tell({ type: 'failed', error: CaravanError.from(error).toData() });
  }

  /** What was asked of a run that has just ended comes too late, and its end is on its way. */
  function control(ask: (trainer: AddonTrainer) => void): void {
    try {
      if (trainer) ask(trainer);
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'wrong_state') throw error;
    }
  }

  return {
    pause: () => control((live) => live.pause()),
    resume: () => control((live) => live.resume()),
    stop: (discard) => control((live) => live.stop({ discard })),
    ended,
  };
}
