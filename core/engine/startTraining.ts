import { superviseProcess, type SpawnProcess } from '../process/supervise.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { TrainOptions } from './AddonTypes.ts';
import type { TrainingEnd, TrainingEngine, TrainingListener } from './client.ts';
import { fromEngineSchema, type Told, type ToEngine } from './protocol.ts';
import { claimRun } from './runClaim.ts';

/** Longer than any event loop is held up on a machine that swaps. */
const silenceMs = 120_000;
/** A run that has told its end may take so long to leave. */
const leaveMs = 10_000;

/** Brings to a listener what an engine told. @returns how the run ended, where that is what it told */
export function deliver(told: Told, listener: TrainingListener): TrainingEnd | null {
  switch (told.type) {
    case 'phase':
      listener.onPhase(told.phase);
      return null;
    case 'opened':
      listener.onOpened(told.opened);
      return null;
    case 'steps':
      listener.onSteps(told.steps);
      return null;
    case 'evaluation':
      listener.onEvaluation(told.evaluation);
      return null;
    case 'checkpoint':
      listener.onCheckpoint(told.checkpoint);
      return null;
    case 'log':
      listener.onLog(told.level, told.message);
      return null;
    case 'ended':
      return { kind: 'ended', result: told.result };
    case 'failed':
      return { kind: 'failed', error: CaravanError.fromData(told.error) };
  }
}

export function startTraining(
  entry: string,
  spawn: SpawnProcess,
  options: TrainOptions,
  listener: TrainingListener,
  runDir: string | null,
): TrainingEngine {
  let end: TrainingEnd | null = null;

  function onMessage(raw: unknown): void {
    const parsed = fromEngineSchema.safeParse(raw);
    if (!parsed.success) {
      listener.onLog('warning', `a message of the engine was not understood: ${parsed.error.message}`);
      return;
    }
    if (parsed.data.type === 'loading') listener.onLoading(parsed.data.done, parsed.data.total);
    if (parsed.data.type !== 'told') return; // a sign of life
    const { told, line } = parsed.data;
    const ended = deliver(told, listener);
    listener.onLine?.(line);
    if (!ended) return;
    end = ended;
    setTimeout(() => child.kill(), leaveMs).unref();
  }

  const child = superviseProcess({ entry, name: 'caravan engine: training', onMessage, spawn, silenceMs });
  const ask = (message: ToEngine) => child.send(message);
  try {
    // Before it is asked to train: should this host be killed, the next one knows whom to wait for.
    if (runDir !== null && child.pid !== null) claimRun(runDir, child.pid);
  } catch (error) {
    child.kill();
    throw error;
  }
  ask({ type: 'train', options, runDir });
  return {
    get pid() {
      return child.pid;
    },
    pause: () => ask({ type: 'pause' }),
    resume: () => ask({ type: 'resume' }),
    stop: ({ discard = false } = {}) => ask({ type: 'stop', discard }),
    kill: (why) => child.kill(why),
    recorded: (line) => ask({ type: 'recorded', line }),
    ended: child.ended.then((left) => end ?? { kind: 'died', ...left }),
  };
}
