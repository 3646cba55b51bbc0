import { CaravanError } from '../shared/contract/errors.ts';
import type { Addon, AddonTrainer, StepMetrics, TrainOptions } from './AddonTypes.ts';
import { openJournal } from './journal.ts';
import type { FromEngine, Told } from './protocol.ts';

/** One run, from the engine's side. */
export interface ServedTraining {
  pause(): void;
  resume(): void;
  stop(discard: boolean): void;
  /** The host has what was told up to this line on disk. */
  recorded(line: number): void;
  /** Resolves when the run has ended and that is told. Never rejects. A failed GPU is not told: the process ends of it,
   * and so the run is one that was interrupted. */
  readonly ended: Promise<'told' | 'device_failed'>;
}

/** Steps wait for one another so long, so that a fast run does not send a message for each. */
const stepsBatchMs = 100;

/** @param runDir folder to keep a journal in; null: none */
export function serveTraining(
  addon: Addon,
  options: TrainOptions,
  runDir: string | null,
  send: (message: FromEngine) => Promise<void>,
): ServedTraining {
  let waiting: StepMetrics[] = [];
  let timer: NodeJS.Timeout | undefined;
  let line = 0;
  const journal =
    runDir === null
      ? null
      : openJournal(runDir, (error) => {
          const message = `what the host does not hear will be lost: ${error.message}`;
          void send({ type: 'told', line, told: { type: 'log', level: 'warning', message } });
        });

  function write(told: Told): void {
    line = journal?.write(told) ?? line + 1;
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (waiting.length === 0) return;
    void send({ type: 'told', line, told: { type: 'steps', steps: waiting } });
    waiting = [];
  }

  /** What is told after a step arrives after it. */
  function tell(told: Told): Promise<void> {
    flush();
    write(told);
    return send({ type: 'told', line, told });
  }

  async function run(): Promise<'told' | 'device_failed'> {
    try {
      const result = await trainer!.start();
      await tell({ type: 'ended', result });
    } catch (error) {
      const known = CaravanError.from(error);
      if (known.code === 'device_failed') {
        flush();
        journal?.sync();
        process.stderr.write(`error: ${options.device}: ${known.message}\n`);
        return 'device_failed';
      }
      await tell({ type: 'failed', error: known.toData() });
    }
    journal?.sync();
    return 'told';
  }

  let trainer: AddonTrainer | null = null;
  let ended: Promise<'told' | 'device_failed'>;
  try {
    trainer = addon.createTrainer(options, {
      onPhase: (phase) => void tell({ type: 'phase', phase }),
      // Of no use once it is over: told, but kept in no journal.
      onLoading: (done, total) => void send({ type: 'loading', done, total }),
      onOpened: (opened) => void tell({ type: 'opened', opened }),
      onStep(metrics) {
        write({ type: 'steps', steps: [metrics] });
        waiting.push(metrics);
        timer ??= setTimeout(flush, stepsBatchMs);
      },
      onEvaluation: (evaluation) => void tell({ type: 'evaluation', evaluation }),
      onCheckpoint: (checkpoint) => void tell({ type: 'checkpoint', checkpoint }),
      onLog: (level, message) => void tell({ type: 'log', level, message }),
    });
    ended = run();
  } catch (error) {
    ended = tell({ type: 'failed', error: CaravanError.from(error).toData() }).then(() => 'told' as const);
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
    recorded: (upTo) => journal?.recorded(upTo),
    ended,
  };
}
