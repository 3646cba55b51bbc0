import { open, type FileHandle } from 'node:fs/promises';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Evaluation, Step } from '../../shared/run/run.ts';
import type { Store } from '../../store/openStore.ts';
import type { MetricsLine, StepLine } from './metricsLog.ts';
import { evaluationOf, stepOf } from './metricsLog.ts';
import { runFiles } from './runFolder.ts';
import type { RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';

/** What a flush brought to disk, in order. */
export interface Flushed {
  steps: Step[];
  evaluations: Evaluation[];
  logLines: string[];
  /** The last mark set before what is now on disk. */
  mark: number;
}

/** Writes what one live run tells: files first, then the database in one transaction, then whoever listens. */
export interface RunRecorder {
  add(line: MetricsLine): void;
  log(line: string): void;
  /** Everything added so far belongs to this mark, or one before. */
  mark(mark: number): void;
  /** Brings everything added so far to disk. Never rejects: trouble goes to `onTrouble`, and what could not be written
   * is tried again at the next flush. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Added lines wait this long for company, or until there are so many. */
const flushEveryMs = 200;
const flushAtLines = 1000;

export async function createRunRecorder(
  { dir, key, metricsBytes }: { dir: string; key: number; metricsBytes: number },
  {
    store,
    runs,
    steps,
    now,
    beforeCommit,
    onFlushed,
    onTrouble,
  }: {
    store: Store;
    runs: RunTable;
    steps: StepTable;
    now: () => number;
    /** Inside the transaction, so that a run's own row never disagrees with its steps. */
    beforeCommit: () => void;
    onFlushed: (flushed: Flushed) => void;
    onTrouble: (error: CaravanError) => void;
  },
): Promise<RunRecorder> {
  const metrics = await openForAppend(runFiles.metrics(dir), metricsBytes);
  const log = await openForAppend(runFiles.log(dir), null);
  /** Not in metrics.jsonl yet. */
  const lines: MetricsLine[] = [];
  /** In metrics.jsonl, not in the database yet. */
  let unindexed: MetricsLine[] = [];
  const logLines: string[] = [];
  let untoldLog: string[] = [];
  let mark = 0;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let turn = Promise.resolve();

  function schedule(): void {
    if (lines.length >= flushAtLines) void flush();
    else timer ??= setTimeout(() => void flush(), flushEveryMs);
  }

  async function write(): Promise<void> {
    const logged = logLines.length;
    const added = lines.length;
    const marked = mark;
    if (logged + added + unindexed.length === 0) return;
    try {
      await withReserve(() => log.append(asText(logLines.slice(0, logged))));
      untoldLog.push(...logLines.splice(0, logged));
      await withReserve(() =>
        metrics.append(asText(lines.slice(0, added).map((line) => JSON.stringify(line)))),
      );
      unindexed.push(...lines.splice(0, added));
      store.transaction(
        () => {
          index(steps, key, unindexed);
          runs.saveMetricsBytes(key, metrics.size());
          beforeCommit();
        },
        // metrics.jsonl holds it too.
        { durable: false },
      );
    } catch (error) {
      onTrouble(explain(error, dir));
      return;
    }
    const kept = unindexed;
    const told = untoldLog;
    unindexed = [];
    untoldLog = [];
    onFlushed({
      steps: kept.filter((line) => line.type === 'step').map(stepOf),
      evaluations: kept.filter((line) => line.type === 'evaluation').map(evaluationOf),
      logLines: told,
      mark: marked,
    });
  }

  async function withReserve(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC' || !store.releaseReserve()) throw error;
      await work();
    }
  }

  function flush(): Promise<void> {
    if (timer) clearTimeout(timer);
    timer = null;
    turn = turn.then(write);
    return turn;
  }

  return {
    add(line) {
      lines.push(line);
      schedule();
    },
    log(text) {
      const at = new Date(now()).toISOString();
      for (const line of text.split('\n')) logLines.push(`${at} ${line}`);
      schedule();
    },
    mark(reached) {
      mark = reached;
    },
    flush,
    async close() {
      await flush();
      await metrics.close();
      await log.close();
    },
  };
}

function asText(texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}

/** Brings lines into the tables, in order. Inside a transaction of the caller's. */
export function index(steps: StepTable, key: number, lines: readonly MetricsLine[]): void {
  let stepped: StepLine[] = [];
  const addBuckets = () => {
    if (stepped.length === 0) return;
    const numbers = stepped.map(({ step }) => step);
    const sources = new Set(stepped.flatMap((line) => line.lossBySource.map(({ source }) => source)));
    steps.addBuckets(key, Math.min(...numbers), Math.max(...numbers), [...sources]);
    stepped = [];
  };
  for (const line of lines)
    if (line.type === 'step') {
      steps.addStep(key, line);
      stepped.push(line);
    } else if (line.type === 'evaluation') steps.addEvaluation(key, line);
    else if (line.type === 'resume') {
      addBuckets();
      steps.supersede(key, line.step);
    }
  addBuckets();
}

interface AppendedFile {
  append(text: string): Promise<void>;
  size(): number;
  close(): Promise<void>;
}

/** `keep`: bytes that stand; what lies past them was cut short by a crash. Null: all of it. */
async function openForAppend(file: string, keep: number | null): Promise<AppendedFile> {
  const handle: FileHandle = await open(file, 'a');
  let size = (await handle.stat()).size;
  if (keep !== null && keep < size) {
    await handle.truncate(keep);
    size = keep;
  }
  return {
    async append(text) {
      if (text === '') return;
      try {
        await handle.appendFile(text);
        size += Buffer.byteLength(text);
      } catch (error) {
        // A full disk takes half a line and then refuses: take it back, so that the next try begins a line.
        await handle.truncate(size).catch(() => undefined);
        throw error;
      }
    },
    size: () => size,
    async close() {
      await handle.datasync().catch(() => undefined);
      await handle.close();
    },
  };
}

function explain(error: unknown, dir: string): CaravanError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new CaravanError('disk_full', 'the disk that holds the run is full', {
      place: { file: dir },
      mend: 'Free some space on it, then resume the run.',
      cause: error,
    });
  return CaravanError.from(error);
}
