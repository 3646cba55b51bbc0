import { randomUUID } from 'node:crypto';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { isEnded, type Job } from '../../shared/job/job.ts';
import { observe, remainingMs, startRate, unitsPerSecond, type Rate } from '../../shared/job/rate.ts';
import { createJobTable } from './jobTable.ts';
import type { JobContext, Jobs, JobsDeps, JobsService, JobTask, Needed } from './jobTypes.ts';

/** A job that waits or runs in this host. Ended ones live in the table alone. */
interface LiveJob {
  job: Job;
  task: JobTask;
  lane: string | undefined;
  /** Set while it waits for a lane in the midst of its work. */
  enter: (() => void) | null;
  abort: AbortController;
  rate: Rate;
  lines: number;
  needs: Set<Needed>;
  /** Jobs of a lane run in this order. */
  order: number;
  /** Set while a change waits for its turn to be told. */
  timer: ReturnType<typeof setTimeout> | null;
  lastTold: number;
  ended: PromiseWithResolvers<Job>;
}

/** How soon after its time the queue starts. */
const queueWatchMs = 1000;
/** Progress is told this often at most. */
const tellEveryMs = 100;
/** How much of the past a rate looks at. */
const rateWindowMs = 30_000;
/** Lines of a job's log; what comes after the last is not kept. */
const maxLines = 2000;

/**
 * The queue of everything that takes its time. Jobs of one lane run in the order they came; lanes do not wait for each
 * other, so curation goes on beside training. What was unfinished when an earlier host ended is marked interrupted here.
 */
export function createJobsService({ store, emit, clock = wallClock }: JobsDeps): JobsService {
  const table = createJobTable(store);
  const live = new Map<string, LiveJob>();
  let closing = false;
  let nextOrder = 1;
  let startsAt = readStartsAt();
  if (startsAt !== null && startsAt <= clock.now()) {
    // The time passed while no host was there: what waits for it goes on waiting for a word.
    store.run(`DELETE FROM settings WHERE name = 'queue.startsAt'`);
    startsAt = null;
  }
  const closed = new CaravanError('interrupted', 'the workbench was closed', { mend: 'Start it again.' });
  table.interruptUnfinished(
    clock.now(),
    new CaravanError('interrupted', 'the workbench ended while this was under way', {
      mend: 'Start it again.',
    }).toData(),
  );

  function readStartsAt(): number | null {
    const row = store.get<{ value: string }>(`SELECT value FROM settings WHERE name = 'queue.startsAt'`);
    return row ? (JSON.parse(row.value) as number) : null;
  }

  function tell(entry: LiveJob): void {
    if (entry.timer) clearTimeout(entry.timer);
    entry.timer = null;
    entry.lastTold = clock.now();
    emit('jobChanged', entry.job);
  }

  function tellSoon(entry: LiveJob): void {
    if (entry.timer) return;
    const wait = entry.lastTold + tellEveryMs - clock.now();
    if (wait <= 0) tell(entry);
    else entry.timer = setTimeout(() => tell(entry), wait);
  }

  function change(entry: LiveJob, change: Partial<Job>): void {
    entry.job = { ...entry.job, ...change };
    try {
      table.save(entry.job);
    } catch (error) {
      // A database that takes no writes (a full disk, say) must not hide the change from those who wait for it.
      process.stderr.write(`job ${entry.job.title}: ${(error as Error).message}\n`);
    }
    tell(entry);
  }

  function end(entry: LiveJob, state: Job['state'], error: CaravanError | null): void {
    live.delete(entry.job.id);
    const { progress } = entry.job;
    change(entry, {
      state,
      error: error?.toData() ?? null,
      progress: progress && { ...progress, etaMs: null },
      place: null,
      held: false,
      canPause: false,
      canCancel: false,
      endedAt: clock.now(),
    });
    entry.ended.resolve(entry.job);
    place(entry.lane);
    startNext(entry.lane);
  }

  function startNext(lane: string | undefined): void {
    if (lane === undefined || closing) return;
    const inLane = [...live.values()].filter((entry) => entry.lane === lane);
    if (inLane.some((entry) => entry.job.state !== 'queued' && entry.enter === null)) return;
    // What has begun goes before what has not.
    const next = inLane.find(({ enter }) => enter !== null) ?? waitingIn(lane).find(({ job }) => !job.held);
    if (!next) return;
    if (next.enter) next.enter();
    else void start(next);
  }

  function waitingIn(lane: string): LiveJob[] {
    return [...live.values()]
      .filter((entry) => entry.lane === lane && entry.job.state === 'queued')
      .sort((a, b) => a.order - b.order);
  }

  /** Gives those who wait their places, and tells of each that has another than before. */
  function place(lane: string | undefined): void {
    if (lane === undefined) return;
    for (const [index, entry] of waitingIn(lane).entries()) {
      if (entry.job.place === index + 1) continue;
      entry.job = { ...entry.job, place: index + 1 };
      entry.task.onPlaced?.(index + 1, entry.job.held);
      tell(entry);
    }
  }

  function hold(entry: LiveJob, held: boolean): void {
    if (entry.job.held === held) return;
    entry.job = { ...entry.job, held };
    entry.task.onPlaced?.(entry.job.place ?? 1, held);
    tell(entry);
    startNext(entry.lane);
  }

  function setStartsAt(at: number | null): void {
    startsAt = at;
    if (at === null) store.run(`DELETE FROM settings WHERE name = 'queue.startsAt'`);
    else store.run(`INSERT OR REPLACE INTO settings VALUES ('queue.startsAt', ?)`, [JSON.stringify(at)]);
    emit('queueChanged', { startsAt });
  }

  function startHeld(): void {
    if (startsAt !== null) setStartsAt(null);
    for (const entry of [...live.values()].sort((a, b) => a.order - b.order))
      if (entry.job.held) hold(entry, false);
  }

  // Looked at rather than slept for: a laptop's sleep stops timers, and the time may pass meanwhile.
  const watch = setInterval(() => {
    if (startsAt !== null && clock.now() >= startsAt && !closing) startHeld();
  }, queueWatchMs);
  watch.unref();

  async function start(entry: LiveJob): Promise<void> {
    const { task } = entry;
    change(entry, {
      state: 'running',
      place: null,
      held: false,
      startedAt: clock.now(),
      canPause: task.pausing !== undefined,
    });
    place(entry.lane);
    entry.rate = startRate(clock.now());
    try {
      await task.run(contextOf(entry));
      if (entry.abort.signal.aborted && entry.job.state === 'stopping')
        // It was past the point of no return when it was asked to end: what it made stands.
        log(entry, 'it had ended before it could be cancelled');
      end(entry, 'completed', null);
    } catch (thrown) {
      const error = CaravanError.from(thrown);
      if (error.code === 'internal') log(entry, error.stack ?? error.message);
      if (error.code === 'cancelled') end(entry, closing ? 'interrupted' : 'cancelled', error);
      else if (error.code === 'interrupted' || error.code === 'engine_died') end(entry, 'interrupted', error);
      else end(entry, 'failed', error);
    }
  }

  function log(entry: LiveJob, line: string): void {
    if (entry.lines >= maxLines) return;
    try {
      table.addLine(entry.job.id, entry.lines++, line);
    } catch {
      // As above: the line is told, if not kept.
    }
    emit('jobLogged', { id: entry.job.id, line });
  }

  function contextOf(entry: LiveJob): JobContext {
    return {
      id: entry.job.id,
      signal: entry.abort.signal,
      progress({ done, total, unit, stage }) {
        if (isEnded(entry.job.state)) return;
        const before = entry.job.progress;
        if (before?.stage !== stage || before?.unit !== unit) entry.rate = startRate(clock.now(), done);
        else entry.rate = observe(entry.rate, clock.now(), done, rateWindowMs);
        const rate = unitsPerSecond(entry.rate);
        const etaMs = remainingMs(entry.rate, total);
        entry.job = {
          ...entry.job,
          progress: { done, total, unit, rate, etaMs, ...(stage !== undefined && { stage }) },
        };
        tellSoon(entry);
      },
      log: (line) => log(entry, line),
      need: (needed) => void entry.needs.add(needed),
      enterLane(lane) {
        const left = entry.lane;
        return new Promise((resolve, reject) => {
          const { signal } = entry.abort;
          const settle = (then: () => void) => {
            entry.enter = null;
            signal.removeEventListener('abort', cancelled);
            then();
          };
          const cancelled = () => settle(() => reject(new CaravanError('cancelled', 'it was cancelled')));
          signal.addEventListener('abort', cancelled);
          entry.lane = lane;
          entry.enter = () => settle(resolve);
          if (signal.aborted) cancelled();
          else startNext(lane);
          startNext(left);
        });
      },
      endPausing: () => change(entry, { canPause: false }),
      setSubject: (id) => change(entry, { subjectId: id }),
    };
  }

  function drop(entry: LiveJob, state: 'cancelled' | 'interrupted', why: CaravanError): void {
    entry.task.onDropped?.(why);
    end(entry, state, why);
  }

  function find(id: string): Job {
    const job = live.get(id)?.job ?? table.get(id);
    if (!job) throw new CaravanError('not_found', `there is no job ${id}`);
    return job;
  }

  function liveIn(id: string, states: readonly Job['state'][], verb: string): LiveJob {
    const job = find(id);
    const entry = live.get(id);
    if (!entry || !states.includes(job.state))
      throw new CaravanError('wrong_state', `'${job.title}' cannot be ${verb}: it is ${job.state}`);
    return entry;
  }

  function cancel(id: string): Job {
    const entry = liveIn(id, ['queued', 'running', 'paused'], 'cancelled');
    if (entry.job.state === 'queued')
      drop(
        entry,
        'cancelled',
        new CaravanError('cancelled', `'${entry.job.title}' was cancelled before it began`),
      );
    else {
      change(entry, { state: 'stopping', canPause: false, canCancel: false });
      entry.abort.abort();
    }
    return entry.job;
  }

  function setPaused(id: string, paused: boolean): void {
    const entry = live.get(id);
    const [from, to] = paused ? (['running', 'paused'] as const) : (['paused', 'running'] as const);
    if (entry?.job.state === from) change(entry, { state: to });
  }

  const jobs: Jobs = {
    submit(task) {
      if (closing) throw new CaravanError('interrupted', 'the workbench is closing');
      const entry: LiveJob = {
        task,
        lane: task.lane,
        enter: null,
        job: {
          id: randomUUID(),
          kind: task.kind,
          title: task.title,
          state: 'queued',
          progress: null,
          subjectId: task.subjectId ?? null,
          place: null,
          held: task.held ?? false,
          canPause: false,
          canCancel: true,
          error: null,
          createdAt: clock.now(),
          startedAt: null,
          endedAt: null,
        },
        abort: new AbortController(),
        rate: startRate(clock.now()),
        lines: 0,
        needs: new Set(task.needs),
        order: nextOrder++,
        timer: null,
        lastTold: 0,
        ended: Promise.withResolvers(),
      };
      live.set(entry.job.id, entry);
      table.save(entry.job);
      if (task.lane === undefined) tell(entry);
      else place(entry.lane);
      // Not in this turn: whoever submits gets to know the job's id before its work begins.
      queueMicrotask(() => {
        if (entry.job.state !== 'queued' || closing) return;
        if (task.lane === undefined) void start(entry);
        else startNext(task.lane);
      });
      return entry.job;
    },
    setPaused,
    cancel,
    drop(id) {
      drop(liveIn(id, ['queued'], 'dropped'), 'interrupted', closed);
    },
    whenEnded: (id) => live.get(id)?.ended.promise ?? Promise.resolve(find(id)),
    checkUnneeded(needed, what) {
      const users = [...live.values()].filter((entry) => entry.needs.has(needed));
      if (users.length === 0) return;
      const names = users.map(
        ({ job }) => `${job.kind === 'train' ? 'run' : 'job'} '${job.title}' (${job.state})`,
      );
      throw new CaravanError('wrong_state', `${what} is in use by ${names.join(', ')}`, {
        mend: 'Wait until that has ended, or stop it.',
      });
    },
    isLaneBusy: (lane) => [...live.values()].some((entry) => entry.lane === lane && !entry.job.held),
  };

  return {
    jobs,
    handlers: {
      listJobs() {
        const ended = table.list();
        return ended.map((job) => live.get(job.id)?.job ?? job);
      },
      getJob: ({ id }) => find(id),
      getJobLog({ id }) {
        find(id);
        return { lines: table.lines(id) };
      },
      cancelJob: ({ id }) => cancel(id),
      pauseJob({ id }) {
        const entry = liveIn(id, ['running'], 'paused');
        if (!entry.task.pausing || !entry.job.canPause)
          throw new CaravanError('wrong_state', `'${entry.job.title}' cannot pause`);
        entry.task.pausing.pause();
        setPaused(id, true);
        return entry.job;
      },
      resumeJob({ id }) {
        const entry = liveIn(id, ['paused'], 'resumed');
        entry.task.pausing!.resume();
        setPaused(id, false);
        return entry.job;
      },
      moveJob({ id, place: to }) {
        const entry = liveIn(id, ['queued'], 'moved');
        const { lane } = entry;
        if (lane === undefined)
          throw new CaravanError('wrong_state', `'${entry.job.title}' waits for no turn`);
        const waiting = waitingIn(lane).filter((other) => other !== entry);
        waiting.splice(to - 1, 0, entry);
        for (const other of waiting) other.order = nextOrder++;
        place(lane);
        return entry.job;
      },
      holdJob({ id, held }) {
        const entry = liveIn(id, ['queued'], held ? 'held' : 'started');
        if (entry.lane === undefined)
          throw new CaravanError('wrong_state', `'${entry.job.title}' waits for no turn`);
        hold(entry, held);
        return entry.job;
      },
      getQueue: () => ({ startsAt }),
      setQueue({ startsAt: at }) {
        if (at !== null && at <= clock.now())
          throw new CaravanError('bad_option', 'that time has passed', {
            place: { field: 'startsAt' },
            mend: 'Choose a time to come, or start the queue now.',
          });
        setStartsAt(at);
        return { startsAt };
      },
      startQueue() {
        startHeld();
        return {};
      },
    },
    async close() {
      closing = true;
      clearInterval(watch);
      for (const entry of [...live.values()].filter(({ job }) => job.state === 'queued'))
        drop(entry, 'interrupted', closed);
      const ends = [...live.values()].map((entry) => {
        if (entry.job.state !== 'stopping') entry.abort.abort();
        return entry.ended.promise;
      });
      await Promise.all(ends);
    },
  };
}
