import { superviseProcess, type SpawnProcess } from '../process/supervise.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { TrainOptions } from './AddonTypes.ts';
import type { TrainingEnd, TrainingEngine, TrainingListener } from './client.ts';
import { fromEngineSchema, type ToEngine } from './protocol.ts';

/** Longer than any event loop is held up on a machine that swaps. */
const silenceMs = 120_000;
/** A run that has told its end may take so long to leave. */
const leaveMs = 10_000;

export function startTraining(
  entry: string,
  spawn: SpawnProcess,
  options: TrainOptions,
  listener: TrainingListener,
): TrainingEngine {
  let told: TrainingEnd | null = null;

  function onMessage(raw: unknown): void {
    const parsed = fromEngineSchema.safeParse(raw);
    if (!parsed.success) {
      listener.onLog('warning', `a message of the engine was not understood: ${parsed.error.message}`);
      return;
    }
    const message = parsed.data;
    switch (message.type) {
      case 'phase':
        listener.onPhase(message.phase);
        break;
      case 'steps':
        listener.onSteps(message.steps);
        break;
      case 'evaluation':
        listener.onEvaluation(message.evaluation);
        break;
      case 'checkpoint':
        listener.onCheckpoint(message.checkpoint);
        break;
      case 'log':
        listener.onLog(message.level, message.message);
        break;
      case 'ended':
        told = { kind: 'ended', result: message.result };
        setTimeout(() => child.kill(), leaveMs).unref();
        break;
      case 'failed': {
        const { code, message: text, place, mend } = message.error;
        told = {
          kind: 'failed',
          error: new CaravanError(code, text, { ...(place && { place }), ...(mend && { mend }) }),
        };
        setTimeout(() => child.kill(), leaveMs).unref();
        break;
      }
      case 'beat':
      case 'result':
      case 'error':
      case 'token':
        break; // of no news to a run
    }
  }

  const child = superviseProcess({ entry, name: 'caravan engine: training', onMessage, spawn, silenceMs });
  const ask = (message: ToEngine) => child.send(message);
  ask({ type: 'train', options });
  return {
    get pid() {
      return child.pid;
    },
    pause: () => ask({ type: 'pause' }),
    resume: () => ask({ type: 'resume' }),
    stop: ({ discard = false } = {}) => ask({ type: 'stop', discard }),
    ended: child.ended.then((end) => told ?? { kind: 'died', ...end }),
  };
}
