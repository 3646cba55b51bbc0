import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { checkName, freeName } from '../../shared/names.ts';
import type { Plan, Prediction, Run } from '../../shared/run/run.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import { checkAction } from '../../shared/run/transitions.ts';
import type { TrainingPlan } from '../../engine/AddonTypes.ts';
import type { TrainedModel } from '../models/index.ts';
import { createRunLabels } from './createRunLabels.ts';
import { checkDisk, checkFits, fitsInto, freeDisk, roomOn, systemMemory } from './memory.ts';
import { checkSameMix, prepareRun, type PreparedRun } from './prepareRun.ts';
import { newRun } from './newRun.ts';
import { boundsOf, checkpointBytes, findLargest, trackOf, type Limits } from './predictions.ts';
import { markInterrupted, recoverRuns, removedSuffix } from './recoverRuns.ts';
import { checkpointFolders, readRunFolder, runFiles, writeRunFolder, type RunLock } from './runFolder.ts';
import { lastLines } from './runLog.ts';
import { createRunTable, type RunRecord } from './runTable.ts';
import { createStepTable } from './stepTable.ts';
import { stopPatienceMs } from './stopDeadline.ts';
import { createLiveRun, type LiveRun, type SuperviseDeps } from './superviseRun.ts';
import type { Training, TrainingDeps, TrainingService } from './trainingTypes.ts';
import { whatFits } from './whatFits.ts';

/** How long closing waits for a checkpoint to be written. What an engine does after that is lost up to the one before. */
const closeGraceMs = 60_000;

/** A plan's track record looks at so many of the newest runs. */
const trackedRuns = 20;

/** Runs: planning, starting, supervising, keeping and reading them. */
export function createTrainingService(deps: TrainingDeps): TrainingService {
  const { store, home, emit, jobs, data, engines, models, datasets, version } = deps;
  const { clock = wallClock, memory = systemMemory, freeDiskBytes = freeDisk } = deps;
  const patienceMs = deps.stopPatienceMs ?? stopPatienceMs;
  const { warn = (message: string) => void process.stderr.write(`${message}\n`) } = deps;
  const steps = createStepTable(store);
  const runs = createRunTable(store, steps);
  const runsDir = join(home, 'runs');
  const live = new Map<string, LiveRun>();
  const supervise: SuperviseDeps = {
    store,
    runs,
    steps,
    emit,
    data,
    engines,
    models,
    datasets,
    clock,
    memory,
    freeDiskBytes,
    stopPatienceMs: patienceMs,
  };
  const left = markInterrupted({ store, runs, steps }, clock.now());
  const recovered = recoverRuns({ store, runs, steps }, runsDir, left, {
    onChanged: (run) => emit('runChanged', run),
    warn,
  });

  /** A live run is ahead of the database. */
  function current(record: RunRecord): RunRecord {
    return live.get(record.run.id)?.record ?? record;
  }

  function recordOf(id: string): RunRecord {
    const record = runs.byId(id);
    if (!record)
      throw new CaravanError('not_found', `there is no run ${id}`, { mend: 'List them: caravan runs.' });
    return current(record);
  }

  async function prepare(config: RunConfig): Promise<{ prepared: PreparedRun; plan: TrainingPlan }> {
    const prepared = await prepareRun(config, { models, datasets, engines });
    const plan = await engines.inference.plan({ ...prepared.options, checkpointDir: runsDir });
    return { prepared, plan };
  }

  const roomFor = ({ device }: RunConfig) => roomOn(device, memory(), () => engines.inference.devices());

  /** Looked up once a step: plans are made at every change of a form. */
  const peaks = new Map<number, { step: number; peak: number | null }>();
  function memoryOf({ key, lock, run }: RunRecord): Prediction['memoryBytes'] {
    let known = peaks.get(key);
    if (known?.step !== run.step) {
      known = { step: run.step, peak: steps.peakMemory(key) };
      peaks.set(key, known);
    }
    return { planned: lock.planned?.memoryBytes ?? null, actual: known.peak };
  }

  function lockOf(
    id: string,
    name: string,
    prepared: PreparedRun,
    plan: TrainingPlan,
    build: RunLock['versions'],
  ): RunLock {
    const { model, mix, config } = prepared;
    return {
      schema: 'caravan-run-1',
      id,
      name,
      createdAt: clock.now(),
      versions: build,
      device: prepared.deviceName,
      seed: config.seed,
      model: {
        name: model.name,
        dir: model.dir,
        identity: prepared.summary.identity,
        tokenizerHash: prepared.tokenizerHash,
      },
      mix: {
        name: mix.mix.name,
        dir: mix.mix.dir,
        contentHash: mix.mix.contentHash,
        template: prepared.template,
      },
      totalSteps: plan.steps,
      planned: { memoryBytes: plan.totalMemoryBytes, checkpointBytes: plan.checkpointBytes },
      options: { ...prepared.options, checkpointDir: runFiles.checkpoints(join(runsDir, id)) },
    };
  }

  /** Puts a run into the queue of its device. */
  function enqueue(record: RunRecord, held = false): Run {
    const { id } = record.run;
    const { key } = record;
    const lane = `train:${record.run.config.device}`;
    const task = {
      kind: 'train' as const,
      title: record.run.name,
      lane,
      subjectId: id,
      held,
      onPlaced(place: number, isHeld: boolean) {
        if (isHeld) store.run('INSERT OR REPLACE INTO held_runs VALUES (?, ?)', [key, place]);
        else store.run('DELETE FROM held_runs WHERE run_key = ?', [key]);
      },
      needs: [`mix ${record.lock.mix.dir}`, `model ${record.lock.model.dir}`] as const,
      pausing: { pause: () => entry.pause(), resume: () => entry.resume() },
      onDropped(why: CaravanError) {
        const interrupted = why.code === 'interrupted';
        if (!interrupted) store.run('DELETE FROM held_runs WHERE run_key = ?', [key]);
        entry.change({
          state: interrupted ? 'interrupted' : 'stopped',
          error: interrupted ? why.toData() : null,
          endedAt: clock.now(),
        });
        live.delete(id);
      },
      async run(context: Parameters<typeof entry.train>[0]) {
        try {
          await entry.train(context);
        } finally {
          // It may have been resumed already, by who saw it end.
          if (live.get(id) === entry) live.delete(id);
        }
      },
    };
    const job = jobs.submit(task);
    const entry = createLiveRun(record, job.id, supervise);
    live.set(id, entry);
    entry.change({ state: 'queued', phase: null, endedAt: null, error: null, crash: null });
    return record.run;
  }

  async function startRun(config: RunConfig, hold: boolean): Promise<Run> {
    if (config.name !== undefined) checkName(config.name);
    const { prepared, plan } = await prepare(config);
    const { available, total } = await roomFor(config);
    // Behind another run it will have what that one has now.
    const [room, what] =
      hold || jobs.isLaneBusy(prepared.lane)
        ? ([total, 'in all'] as const)
        : ([available, 'available'] as const);
    await checkFits(plan, config, room, what, () =>
      whatFits(config, room, limitsOf(prepared), (change) =>
        engines.inference.plan({ ...prepared.options, ...change, checkpointDir: runsDir }),
      ),
    );
    await mkdir(runsDir, { recursive: true });
    checkDisk(plan, config, await freeDiskBytes(runsDir), runsDir);
    const { buildId } = await engines.inference.buildInfo();
    const id = newId((candidate) => runs.byId(candidate) !== null);
    const wanted = config.name ?? `${prepared.model.name}-${config.method}`;
    const name = freeName(wanted, (taken) => runs.byName(taken) !== null);
    const lock = lockOf(id, name, prepared, plan, {
      caravan: version,
      engine: buildId,
      node: process.version,
    });
    const dir = join(runsDir, id);
    const record = runs.insert(newRun(dir, config, { ...lock, name }), lock);
    try {
      await writeRunFolder(dir, config, lock);
    } catch (error) {
      runs.remove(record.key);
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
    return enqueue(record, hold);
  }

  /** Runs that were held when an earlier host ended wait on, in their order. */
  async function holdAgain(): Promise<void> {
    await recovered;
    const waiting = store.all<{ id: string }>(
      'SELECT runs.id FROM held_runs JOIN runs ON runs.key = held_runs.run_key ORDER BY place, run_key',
    );
    store.run('DELETE FROM held_runs');
    for (const { id } of waiting) {
      const record = runs.byId(id);
      if (record?.run.trashedAt === null && record.run.state === 'interrupted') enqueue(record, true);
    }
  }

  async function resumeRun(id: string): Promise<Run> {
    await recovered;
    const record = recordOf(id);
    checkAction(record.run, 'resume');
    if (record.run.trashedAt !== null)
      throw new CaravanError('wrong_state', `run '${record.run.name}' is in the trash`, {
        mend: 'Restore it first.',
      });
    await checkSameMix(record.lock.mix, datasets);
    if (!(await exists(record.lock.model.dir)))
      throw new CaravanError('not_found', `the base model of run '${record.run.name}' is gone`, {
        place: { file: record.lock.model.dir },
        mend: 'Bring it back to where it was.',
      });
    // Two calls at once must not queue it twice.
    checkAction(recordOf(id).run, 'resume');
    return enqueue(record);
  }

  async function trainedModel(ref: string): Promise<TrainedModel | null> {
    if (isAbsolute(ref)) return trainedFolder(ref);
    const found = runs.find(ref);
    if (!found) return null;
    const { run, lock } = current(found);
    const known = run.lastCheckpoint;
    const checkpointDir =
      known !== null && (await isFolder(known)) ? known : (await checkpointFolders(run.dir))[0]?.path;
    return trained(run.id, run.name, run.config, lock, checkpointDir);
  }

  /** A run's folder, or one of its checkpoints', of this home or another. */
  async function trainedFolder(path: string): Promise<TrainedModel | null> {
    const isCheckpoint = /^step-\d+$/.test(basename(path)) && basename(dirname(path)) === 'checkpoints';
    const dir = isCheckpoint ? dirname(dirname(path)) : path;
    const found = await readRunFolder(dir);
    if (!found) return null;
    const checkpointDir = isCheckpoint ? path : (await checkpointFolders(dir))[0]?.path;
    return trained(
      found.lock.id,
      runs.byId(found.lock.id)?.run.name ?? found.lock.name,
      found.config,
      found.lock,
      checkpointDir,
    );
  }

  function trained(
    runId: string,
    runName: string,
    config: RunConfig,
    lock: RunLock,
    checkpointDir: string | undefined,
  ): TrainedModel {
    if (checkpointDir === undefined)
      throw new CaravanError('wrong_state', `run '${runName}' has no checkpoint yet`, {
        mend: 'Wait for its first one; saveSteps says how often they are written.',
      });
    const { dir: modelDir, identity: baseIdentity } = lock.model;
    return { runId, runName, modelDir, baseIdentity, checkpointDir, config, template: lock.mix.template };
  }

  const training: Training = {
    trainedModel,
    processes: () =>
      [...live.values()].flatMap(({ pid, record }) =>
        pid === null ? [] : [{ name: `training ${record.run.name}`, pid, runId: record.run.id }],
      ),
    get busy() {
      return live.size > 0;
    },
    recovered: recovered
      .then(holdAgain)
      .catch((error: unknown) => warn(`runs that were held wait no more: ${String(error)}`)),
  };

  const labelHandlers = createRunLabels({
    recordOf,
    liveRun: (id) => live.get(id) ?? null,
    store,
    runs,
    steps,
    emit,
    now: () => clock.now(),
    warn,
  });

  return {
    training,
    handlers: {
      async planRun({ config, probe }) {
        const { prepared, plan } = await prepare(config);
        const timed = probe
          ? await engines.inference.probe({ ...prepared.options, checkpointDir: runsDir })
          : null;
        const { available } = await roomFor(config);
        return {
          ...plan,
          diskBytes: plan.checkpointBytes * (config.keepCheckpoints + 2),
          freeDiskBytes: await freeDiskBytes(existsSync(runsDir) ? runsDir : home),
          track: trackOf(runs.list().slice(0, trackedRuns).map(memoryOf)),
          availableMemoryBytes: available.deviceBytes,
          fits: fitsInto(plan, available),
          probe: timed,
          estimatedMs: timed && estimate(plan, prepared, timed),
        };
      },
      async planLargest({ config, vary, memoryBytes: asked }) {
        const prepared = await prepareRun(config, { models, datasets, engines });
        const { available } = await roomFor(config);
        const memoryBytes = asked ?? available.deviceBytes;
        const bounds = boundsOf(vary, limitsOf(prepared));
        const room = {
          deviceBytes: memoryBytes,
          hostBytes: asked === undefined ? available.hostBytes : Infinity,
        };
        const found = await findLargest(bounds, room, (value) =>
          engines.inference.plan({ ...prepared.options, [vary]: value, checkpointDir: runsDir }),
        );
        return {
          memoryBytes,
          largest: found && { value: found.value, totalMemoryBytes: found.plan.totalMemoryBytes },
          most: bounds[1],
        };
      },
      async readPrediction({ id }) {
        const record = recordOf(id);
        return {
          memoryBytes: memoryOf(record),
          checkpointBytes: {
            planned: record.lock.planned?.checkpointBytes ?? null,
            actual: await checkpointBytes(record.run.lastCheckpoint),
          },
        };
      },
      startRun: ({ config, hold }) => startRun(config, hold),
      resumeRun: ({ id }) => resumeRun(id),
      pauseRun({ id }) {
        const { run } = recordOf(id);
        checkAction(run, 'pause');
        const entry = live.get(id)!;
        entry.pause();
        jobs.setPaused(entry.jobId, true);
        return entry.record.run;
      },
      continueRun({ id }) {
        const { run } = recordOf(id);
        checkAction(run, 'continue');
        const entry = live.get(id)!;
        entry.resume();
        jobs.setPaused(entry.jobId, false);
        return entry.record.run;
      },
      stopRun({ id }) {
        const { run } = recordOf(id);
        checkAction(run, 'stop');
        const entry = live.get(id)!;
        jobs.cancel(entry.jobId);
        return entry.record.run;
      },
      listRuns: (page) => runs.list(page).map((record) => current(record).run),
      getRun: ({ id }) => recordOf(id).run,
      findRun({ ref }) {
        const record = runs.find(ref.startsWith('run:') ? ref.slice('run:'.length) : ref);
        if (!record)
          throw new CaravanError('not_found', `'${ref}' is no run's id, the start of one, or its name`, {
            mend: 'List them: caravan runs.',
          });
        return current(record).run;
      },
      ...labelHandlers,
      async removeRun({ id }) {
        const { run, key } = recordOf(id);
        checkAction(run, 'remove');
        await recovered;
        // Renamed first: a host that ends in between finds no folder that it would take for a run.
        const gone = `${run.dir}${removedSuffix}`;
        await rename(run.dir, gone).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOENT') throw error;
        });
        runs.remove(key);
        emit('runRemoved', { id });
        await rm(gone, { recursive: true, force: true });
        return {};
      },
      readSteps: ({ id, fromStep, limit }) => steps.readSteps(recordOf(id).key, fromStep, limit),
      readSeries({ id, metrics, fromStep, toStep, buckets }) {
        const { key, run } = recordOf(id);
        const sparse = run.config.method === 'pesc' || run.config.method === 'upcycle';
        return steps.readSeries(key, {
          metrics,
          numExperts: sparse ? run.config.numExperts : 0,
          fromStep,
          toStep,
          buckets,
        });
      },
      readEvaluations: ({ id }) => steps.evaluations(recordOf(id).key),
      async readRunLog({ id, tail }) {
        return { lines: (await lastLines(runFiles.log(recordOf(id).run.dir))).slice(-tail) };
      },
      async readStepRows({ id, step }) {
        const { key, lock, run } = recordOf(id);
        const saw = steps.rowsOf(key, step);
        if (!saw)
          throw new CaravanError('not_found', `run '${run.name}' has no step ${step}`, {
            place: { field: 'step' },
          });
        await checkSameMix(lock.mix, datasets);
        const rows = await data.request('readMixRowsAt', {
          dir: lock.mix.dir,
          split: 'train',
          rows: saw.map(({ row }) => row),
        });
        const losses = new Map(saw.map(({ row, loss }) => [row, loss]));
        return rows.map(({ row, source, messages, tokens, sourceRow, file, line, hash }) => ({
          row,
          source,
          sourceRow,
          file,
          line,
          hash,
          loss: losses.get(row) ?? null,
          tokens: tokens ?? 0,
          messages,
        }));
      },
    },
    async close() {
      await recovered;
      const ends: Promise<unknown>[] = [];
      // Those that wait first: one that ends would start the next.
      const waitingFirst = [...live.values()].sort(
        (a, b) => Number(b.record.run.state === 'queued') - Number(a.record.run.state === 'queued'),
      );
      for (const entry of waitingFirst) {
        ends.push(jobs.whenEnded(entry.jobId));
        if (entry.record.run.state === 'queued') jobs.drop(entry.jobId);
        else entry.stop('closing');
      }
      let timer: ReturnType<typeof setTimeout> | undefined;
      const grace = new Promise<void>((resolve) => (timer = setTimeout(resolve, closeGraceMs)));
      await Promise.race([Promise.all(ends), grace]);
      clearTimeout(timer);
    },
  };
}

/** Eight letters and digits, the first a letter: short enough to type the beginning of. */
function newId(isTaken: (id: string) => boolean): string {
  const alphabet = 'abcdefghjkmnpqrstuvwxyz23456789';
  for (;;) {
    const id = Array.from(
      randomBytes(8),
      (byte, index) => alphabet[byte % (index === 0 ? 23 : alphabet.length)],
    ).join('');
    if (!isTaken(id)) return id;
  }
}

function limitsOf({ summary, mix, config }: PreparedRun): Limits {
  return {
    maxPositions: summary.maxPositions,
    longestRow: mix.mix.seqLen ?? 1,
    batchSize: config.batchSize,
  };
}

/** By the probed pace: rows of mean length, as many as the steps see. */
function estimate(
  plan: TrainingPlan,
  { mix, config }: PreparedRun,
  probe: NonNullable<Plan['probe']>,
): number | null {
  const { tokens, rows } = mix.mix;
  if (tokens === null || rows === 0 || probe.tokensPerSecond <= 0) return null;
  const seen = Math.min(plan.steps * config.batchSize, rows * config.epochs);
  return ((seen * (tokens / rows)) / probe.tokensPerSecond) * 1000;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}
