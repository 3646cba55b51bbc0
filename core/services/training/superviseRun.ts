import type { DataProcess } from '../../data/client.ts';
import type { TrainOptions } from '../../engine/AddonTypes.ts';
import {
  deliver,
  type Engines,
  outliveEngine,
  readJournal,
  releaseRun,
  removeJournal,
  type TrainingEnd,
  type TrainingEngine,
  type TrainingListener,
} from '../../engine/client.ts';
import type { Clock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { EmitEvent } from '../../shared/contract/service.ts';
import { observe, remainingMs, startRate, type Rate } from '../../shared/job/rate.ts';
import { makeCrashCard } from '../../shared/run/crashCard.ts';
import { labelOf, type Run, type RunLabel } from '../../shared/run/run.ts';
import type { Store } from '../../store/openStore.ts';
import type { Datasets } from '../datasets/index.ts';
import type { JobContext } from '../jobs/index.ts';
import type { Models } from '../models/index.ts';
import { createRunRecorder, type Flushed, type RunRecorder } from './createRunRecorder.ts';
import { checkInputs } from './checkInputs.ts';
import { evaluationLine, evaluationOf, openedLine, stepLine } from './metricsLog.ts';
import { readFiles } from './recoverRuns.ts';
import { runFiles, writeRunLock } from './runFolder.ts';
import type { RunRecord, RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';
import { createStopDeadline, type Pace } from './stopDeadline.ts';

export interface SuperviseDeps {
  store: Store;
  runs: RunTable;
  steps: StepTable;
  emit: EmitEvent;
  data: DataProcess;
  engines: Engines;
  models: Models;
  datasets: Datasets;
  clock: Clock;
  memory: () => { availableBytes: number; totalBytes: number };
  freeDiskBytes: (dir: string) => Promise<number>;
  stopPatienceMs: (pace: Pace) => number;
}

/** A run that waits for an engine or has one. What clients see of it is `record.run`, ahead of the database. */
export interface LiveRun {
  readonly record: RunRecord;
  readonly jobId: string;
  pause(): void;
  resume(): void;
  /** With a checkpoint. `why` the host closes: then the run ends as interrupted. */
  stop(why: 'asked' | 'closing'): void;
  mark(label: RunLabel): void;
  readonly pid: number | null;
}

/** Longer than a checkpoint takes to be written. */
const orphanGraceMs = 45_000;
/** How much of the past the estimate of the remaining time looks at. */
const rateWindowMs = 300_000;

export function createLiveRun(
  record: RunRecord,
  jobId: string,
  deps: SuperviseDeps,
): LiveRun & { train(context: JobContext): Promise<void>; change(change: Partial<Run>): void } {
  const { store, runs, steps, emit, engines, clock } = deps;
  const { key, lock } = record;
  const dir = record.run.dir;
  let engine: TrainingEngine | null = null;
  let recorder: RunRecorder | null = null;
  let asked: 'asked' | 'closing' | null = null;
  let trouble: CaravanError | null = null;
  let rate: Rate = startRate(0);
  /** Since when time counts as spent; null while paused. */
  let activeSince: number | null = null;
  let memoryBytes: number | null = null;
  /** How the attempt ends, while that is being written. */
  let ending: Run | null = null;
  /** Of the engine's journal: heard, and said to be on disk. */
  let heardLine = 0;
  let recordedLine = 0;
  let longestStepMs = 0;
  let longestEvaluationMs = 0;
  /** How long the engine said nothing after it was asked to stop, where that was too long. */
  let hungMs: number | null = null;
  const deadline = createStopDeadline(
    () => deps.stopPatienceMs({ phase: record.run.phase, longestStepMs, longestEvaluationMs }),
    (silentMs) => {
      hungMs = silentMs;
      engine?.kill(`asked to stop, it said nothing for ${silentMs / 1000} s: killed as hung`);
    },
  );

  function count(): void {
    if (activeSince === null) return;
    const now = clock.now();
    record.run = { ...record.run, elapsedMs: record.run.elapsedMs + (now - activeSince) };
    activeSince = now;
  }

  function change(change: Partial<Run>): void {
    count();
    record.run = { ...record.run, ...change };
    try {
      runs.save(key, record.run);
    } catch (error) {
      // A full disk must not hide the change from those who watch.
      onTrouble(CaravanError.from(error));
    }
    emit('runChanged', record.run);
  }

  function stop(why: 'asked' | 'closing'): void {
    if (asked !== null) return;
    asked = why;
    change({ state: 'stopping' });
    stopEngine();
  }

  function stopEngine(): void {
    if (!engine) return;
    engine.stop();
    deadline.start();
  }

  function onFlushed(context: JobContext, { steps: stepped, evaluations, logLines, mark }: Flushed): void {
    if (mark > recordedLine) {
      recordedLine = mark;
      engine?.recorded(mark);
    }
    const { id, step, totalSteps, phase } = record.run;
    if (stepped.length > 0) emit('runStepped', { id, steps: stepped });
    for (const evaluation of evaluations) emit('runEvaluated', { id, evaluation });
    if (logLines.length > 0) emit('runLogged', { id, lines: logLines });
    if (stepped.length + evaluations.length > 0) emit('runChanged', record.run);
    context.progress({ done: step, total: totalSteps, unit: 'steps', ...(phase && { stage: phase }) });
  }

  function onTrouble(error: CaravanError): void {
    if (trouble) return;
    trouble = error;
    // Training on with nothing kept would only waste time: end with a checkpoint, if the disk takes one.
    stopEngine();
  }

  function optionsOf(): TrainOptions {
    return { ...lock.options, checkpointDir: runFiles.checkpoints(dir) };
  }

  /** The newest checkpoint that verifies; null where there is none, and training starts over. */
  async function chooseCheckpoint(): Promise<{ step: number; path: string } | null> {
    for (const { step, path, problem } of await engines.inference.listCheckpoints(
      runFiles.checkpoints(dir),
    )) {
      if (problem === null) return { step, path };
      recorder!.log(`warning: checkpoint ${path} does not verify and is passed over: ${problem}`);
    }
    return null;
  }

  async function train(context: JobContext): Promise<void> {
    const resumed = record.run.startedAt !== null;
    activeSince = clock.now();
    change({
      state: 'running',
      phase: 'loading',
      startedAt: record.run.startedAt ?? clock.now(),
      endedAt: null,
      error: null,
      crash: null,
      attempt: resumed ? record.run.attempt + 1 : 0,
    });
    context.signal.addEventListener('abort', () => stop('asked'));
    try {
      const { mix, diskWarning } = await checkInputs(record, optionsOf(), deps, context);
      await outliveOrphan(context);
      if (resumed) {
        const files = await readFiles({ store, runs, steps }, record, record.run.attempt - 1);
        record.run = { ...files, ...pick(record.run) };
      }
      await writeRunLock(dir, lock);
      runs.saveLock(key, lock);
      recorder = await createRunRecorder(
        { dir, key, metricsBytes: record.metricsBytes },
        {
          store,
          runs,
          steps,
          now: () => clock.now(),
          beforeCommit() {
            count();
            runs.save(key, ending ?? record.run);
          },
          onFlushed: (flushed) => onFlushed(context, flushed),
          onTrouble,
        },
      );
      recorder.log(
        resumed
          ? `attempt ${record.run.attempt} of ${record.run.name}`
          : `${record.run.name}: ${record.run.config.method} of ${lock.model.name} (${lock.model.identity}) on mix ${lock.mix.name} (${lock.mix.contentHash})`,
      );
      if (diskWarning !== null) recorder.log(`warning: ${diskWarning}`);
      const from = resumed ? await chooseCheckpoint() : null;
      if (resumed) await startOver(from, recorder);
      if (from) await warnIfInexact(recorder);
      rate = startRate(0, record.run.step);
      if (asked !== null) throw new CaravanError('cancelled', 'stopped before the engine was started');
      engine = engines.startTraining(
        {
          ...optionsOf(),
          trainShard: mix.trainShard!,
          ...(mix.validationShard !== null && { validationShard: mix.validationShard }),
          ...(from && { resumeFrom: from.path }),
        },
        listenerOf(recorder, context),
        dir,
      );
      if (record.run.state === 'paused') engine.pause();
      const end = await engine.ended;
      deadline.clear();
      await finish(end, context);
    } catch (error) {
      if (engine) {
        await recorder?.close();
        throw error;
      }
      const known = CaravanError.from(error);
      await settle(
        known.code === 'cancelled' && asked !== null
          ? { state: asked === 'closing' ? 'interrupted' : 'stopped', error: null }
          : { state: 'failed', error: known.toData() },
      );
      throw known;
    }
  }

  /** Of a host that died its engine may still be writing a checkpoint into this folder. */
  async function outliveOrphan(context: JobContext): Promise<void> {
    const killed = await outliveEngine(dir, orphanGraceMs, (pid) => {
      const stage = `waiting for the engine of an earlier host (process ${pid}) to save and end`;
      context.log(stage);
      context.progress({ done: record.run.step, total: record.run.totalSteps, unit: 'steps', stage });
    });
    if (killed) context.log(`it did not within ${orphanGraceMs / 1000} s and was killed`);
  }

  /** The same bits come from the same build on the same device alone. */
  async function warnIfInexact(recorder: RunRecorder): Promise<void> {
    const { buildId } = await engines.inference.buildInfo();
    if (buildId !== lock.versions['engine'])
      recorder.log(
        `warning: this resume is not exact: the run began with engine build ${lock.versions['engine'] ?? 'unknown'}, this is ${buildId}`,
      );
  }

  /** Points of the earlier attempt past the checkpoint no longer count. */
  async function startOver(
    from: { step: number; path: string } | null,
    recorder: RunRecorder,
  ): Promise<void> {
    const step = from?.step ?? 0;
    recorder.log(from ? `resuming from ${from.path}` : 'no checkpoint to resume from: starting over');
    recorder.add({ type: 'resume', attempt: record.run.attempt, step, at: clock.now() });
    await recorder.flush();
    const last = steps.last(key);
    if (step > (last?.step ?? 0))
      recorder.log(
        `warning: steps ${(last?.step ?? 0) + 1} to ${step} are in the checkpoint but not in the metrics: the engine outlived its host by them`,
      );
    const evaluations = steps.firstAndLastEvaluation(key);
    change({
      step,
      loss: last?.loss ?? null,
      firstEvaluation: evaluations.first,
      lastEvaluation: evaluations.last,
      lastCheckpoint: from?.path ?? null,
    });
  }

  function listenerOf(recorder: RunRecorder, context: JobContext): TrainingListener {
    return {
      onLine(line) {
        heardLine = line;
        deadline.heard();
        recorder.mark(line);
      },
      onOpened(opened) {
        const { type: _, ...measured } = openedLine(opened);
        recorder.add({ type: 'opened', ...measured });
        change(measured);
      },
      onLoading: (done, total) =>
        context.progress({ done, total, unit: 'bytes', stage: 'loading the base model' }),
      onPhase(phase) {
        recorder.log(phase);
        change({ phase });
      },
      onSteps(batch) {
        for (const metrics of batch) {
          recorder.add(stepLine(metrics, record.run.attempt, clock.now()));
          // Time in steps: what evaluations and pauses take says nothing of the pace.
          rate = observe(rate, rate.at + metrics.stepMs, metrics.step, rateWindowMs);
          memoryBytes = metrics.memoryBytes;
          longestStepMs = Math.max(longestStepMs, metrics.stepMs);
          if (metrics.skipped)
            recorder.log(
              `warning: step ${metrics.step} was skipped: its loss or gradient was not finite; rows ${Array.from(metrics.rows).join(', ')}`,
            );
        }
        const last = batch.at(-1);
        if (!last) return;
        record.run = {
          ...record.run,
          step: last.step,
          totalSteps: last.totalSteps,
          loss: Number.isFinite(last.loss) ? last.loss : null,
          tokensPerSecond: Number.isFinite(last.tokensPerSecond) ? last.tokensPerSecond : null,
          etaMs: remainingMs(rate, last.totalSteps),
        };
      },
      onEvaluation(metrics) {
        longestEvaluationMs = Math.max(longestEvaluationMs, metrics.evaluationMs);
        const line = evaluationLine(metrics);
        recorder.add(line);
        const evaluation = evaluationOf(line);
        record.run = {
          ...record.run,
          firstEvaluation: record.run.firstEvaluation ?? evaluation,
          lastEvaluation: evaluation,
        };
      },
      onCheckpoint({ step, path, problem }) {
        if (problem !== null) {
          recorder.log(`warning: the checkpoint of step ${step} does not verify: ${problem}`);
          return;
        }
        recorder.log(`checkpoint ${path}`);
        change({ lastCheckpoint: path });
        // A checkpoint without the steps before it would leave a hole in the curve.
        void recorder.flush();
      },
      onLog: (level, message) => recorder.log(level === 'warning' ? `warning: ${message}` : message),
    };
  }

  async function finish(end: TrainingEnd, context: JobContext): Promise<void> {
    if (end.kind === 'ended') {
      const { reason, checkpoint, step, totalSteps, stepZeroDifference, quantizationDifference } = end.result;
      const facts = {
        step,
        totalSteps,
        lastCheckpoint: checkpoint ?? record.run.lastCheckpoint,
        stepZeroDifference,
        quantizationDifference,
      };
      if (reason === 'finished') {
        await settle({ ...facts, state: 'completed', error: null });
        return;
      }
      if (trouble) {
        await settle({ ...facts, state: 'failed', error: trouble.toData() });
        throw trouble;
      }
      if (asked === 'closing') {
        const error = new CaravanError('interrupted', 'the workbench was closed', {
          mend: 'Resume the run.',
        });
        await settle({ ...facts, state: 'interrupted', error: error.toData() });
        throw error;
      }
      await settle({ ...facts, state: 'stopped', error: null });
      throw new CaravanError('cancelled', `stopped at step ${step}; it can be resumed`);
    }
    if (end.kind === 'failed') {
      const last = steps.last(key);
      // The process ended well; what is known is what a crash card says.
      const crash =
        end.error.code === 'out_of_memory'
          ? makeCrashCard(
              { exitCode: null, signal: null, stderrTail: [`out of memory: ${end.error.message}`] },
              { step: last?.step ?? null, checkpoint: record.run.lastCheckpoint, memoryBytes },
            )
          : null;
      await settle({ state: 'failed', error: end.error.toData(), crash });
      throw end.error;
    }
    const unheard = readJournal(dir).filter(({ line }) => line > heardLine);
    const listener = listenerOf(recorder!, context);
    for (const { line, told } of unheard) {
      const ended = deliver(told, listener);
      listener.onLine!(line);
      // It had come to its end and was killed on its way out.
      if (ended) return finish(ended, context);
    }
    await recorder!.flush();
    const last = steps.last(key);
    const crash = makeCrashCard(end, {
      step: last?.step ?? null,
      checkpoint: record.run.lastCheckpoint,
      memoryBytes,
    });
    const how =
      hungMs === null
        ? `ended by itself (${end.signal ?? `exit code ${end.exitCode ?? 'unknown'}`})${crash.line === null ? '' : `: ${crash.line}`}`
        : `was asked to stop, said nothing for ${hungMs / 1000} s, and was killed`;
    const error = new CaravanError('engine_died', `the engine ${how}`, { mend: crash.advice });
    await settle({ state: 'interrupted', error: error.toData(), crash });
    throw error;
  }

  /** The end of an attempt: in files and database first, as far as the disk allows, then to all who watch. Whoever sees
   * that a run has ended may resume or remove it at once. */
  async function settle(outcome: Partial<Run> & Pick<Run, 'state'>): Promise<void> {
    await recorder?.flush();
    count();
    activeSince = null;
    ending = { ...record.run, ...outcome, phase: null, etaMs: null, endedAt: clock.now() };
    recorder?.log(`${ending.state} at step ${ending.step}${ending.error ? `: ${ending.error.message}` : ''}`);
    recorder?.add({
      type: 'state',
      state: ending.state,
      at: clock.now(),
      elapsedMs: ending.elapsedMs,
      stepZeroDifference: ending.stepZeroDifference,
      quantizationDifference: ending.quantizationDifference,
      error: ending.error,
      crash: ending.crash,
    });
    await recorder?.close();
    if (engine) {
      if (trouble === null) removeJournal(dir);
      releaseRun(dir);
    }
    record.metricsBytes = runs.byId(ending.id)?.metricsBytes ?? record.metricsBytes;
    change(ending);
  }

  return {
    record,
    jobId,
    get pid() {
      return engine?.pid ?? null;
    },
    pause() {
      change({ state: 'paused' });
      activeSince = null;
      engine?.pause();
    },
    resume() {
      activeSince = clock.now();
      change({ state: 'running' });
      engine?.resume();
    },
    stop,
    mark(label) {
      change(label);
      recorder?.add({ type: 'label', ...label });
    },
    train,
    change,
  };
}

/** What an attempt just set, which the files of the one before know nothing of. */
function pick({
  state,
  phase,
  startedAt,
  endedAt,
  error,
  crash,
  attempt,
  elapsedMs,
  ...run
}: Run): Partial<Run> {
  return { state, phase, startedAt, endedAt, error, crash, attempt, elapsedMs, ...labelOf(run) };
}
