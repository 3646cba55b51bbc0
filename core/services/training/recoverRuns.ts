import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { engineOf, journalFile } from '../../engine/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { freeName } from '../../shared/names.ts';
import type { Run } from '../../shared/run/run.ts';
import type { Store } from '../../store/openStore.ts';
import { newRun } from './newRun.ts';
import { foldJournal } from './foldJournal.ts';
import { indexMetrics, nothingIndexed } from './indexMetrics.ts';
import { checkpointFolders, readRunFolder, runFiles } from './runFolder.ts';
import type { RunRecord, RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';

interface Tables {
  store: Store;
  runs: RunTable;
  steps: StepTable;
}

/** The name of a run's folder while it is being deleted. */
export const removedSuffix = '.removed';

const hostEnded = new CaravanError('interrupted', 'the workbench ended while the run was under way', {
  mend: 'Resume the run: it goes on from its last checkpoint.',
}).toData();

/** Nothing can be running where this host is just beginning. At once, so that no client sees otherwise. */
export function markInterrupted({ runs, store }: Tables, now: number): RunRecord[] {
  const left = runs
    .list()
    .filter(({ run }) => ['queued', 'running', 'paused', 'stopping'].includes(run.state));
  store.transaction(() => {
    for (const record of left) {
      record.run = { ...record.run, state: 'interrupted', phase: null, error: hostEnded, endedAt: now };
      runs.save(record.key, record.run);
    }
  });
  return left;
}

/** Brings the index up to what the files say: of runs that were interrupted, and of folders that it does not know. */
export async function recoverRuns(
  tables: Tables,
  runsDir: string,
  interrupted: readonly RunRecord[],
  told: { onChanged: (run: Run) => void; warn: (message: string) => void },
): Promise<void> {
  for (const record of interrupted)
    await attempt(record.run.dir, told.warn, async () => {
      record.run = await readFiles(tables, record);
      tables.runs.save(record.key, record.run);
      told.onChanged(record.run);
    });
  for (const { key } of tables.runs.list()) {
    while (!tables.steps.fillBuckets(key)) await nextTurn();
  }
  for (const name of await readdir(runsDir).catch(() => [])) {
    const dir = join(runsDir, name);
    if (name.endsWith(removedSuffix)) await rm(dir, { recursive: true, force: true });
    else if (tables.runs.byId(name) === null)
      await attempt(dir, told.warn, async () => {
        const run = await adoptFolder(tables, dir);
        if (run) told.onChanged(run);
      });
  }
}

async function attempt(
  dir: string,
  warn: (message: string) => void,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    warn(`the run in ${dir} could not be read: ${(error as Error).message}`);
  }
}

/** A run that the database lacks, from its folder alone. @returns null where the folder is no run's. */
export async function adoptFolder(tables: Tables, dir: string): Promise<Run | null> {
  const found = await readRunFolder(dir);
  if (!found) return null;
  const { config, lock } = found;
  const { runs } = tables;
  if (runs.byId(lock.id)) return null;
  const record = runs.insert(
    {
      ...newRun(dir, config, lock),
      name: freeName(lock.name, (name) => runs.byName(name) !== null),
      state: 'interrupted',
      error: hostEnded,
    },
    lock,
  );
  const run = await readFiles(tables, record);
  runs.save(record.key, run);
  return run;
}

/**
 * Indexes what of metrics.jsonl is not indexed yet, and what the engine told last without being heard.
 * @param attempt that wrote it, where metrics.jsonl does not say
 * @returns the run as its files have it
 */
export async function readFiles(
  tables: Tables,
  record: RunRecord,
  attempt = record.run.attempt,
): Promise<Run> {
  const { runs, steps } = tables;
  const { key, run } = record;
  let found = await indexMetrics(runFiles.metrics(run.dir), key, record.metricsBytes, tables).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    },
  );
  // While an engine of an earlier host still trains there, the journal is its own: the next resume waits for it and reads it.
  if (existsSync(journalFile(run.dir)) && engineOf(run.dir) === null) {
    found ??= nothingIndexed(0);
    await foldJournal(tables, record, found.resume?.attempt ?? attempt, found);
  }
  const last = steps.last(key);
  const evaluations = steps.firstAndLastEvaluation(key);
  const files: Partial<Run> = {
    step: last?.step ?? 0,
    loss: last?.loss ?? null,
    tokensPerSecond: last?.tokensPerSecond ?? null,
    firstEvaluation: evaluations.first,
    lastEvaluation: evaluations.last,
    lastCheckpoint: (await checkpointFolders(run.dir))[0]?.path ?? null,
  };
  if (!found) return { ...run, ...files };
  record.metricsBytes = found.bytes;
  const { state, label, resume, opened } = found;
  const measured = {
    stepZeroDifference: state?.stepZeroDifference ?? opened?.stepZeroDifference ?? run.stepZeroDifference,
    quantizationDifference:
      state?.quantizationDifference ?? opened?.quantizationDifference ?? run.quantizationDifference,
  };
  return {
    ...run,
    ...files,
    ...measured,
    ...(label && {
      name: freeName(label.name, (name) => (runs.byName(name)?.key ?? key) !== key),
      note: label.note,
      tags: label.tags,
      starred: label.starred,
      archived: label.archived,
      trashedAt: label.trashedAt,
    }),
    ...(resume && { attempt: resume.attempt }),
    startedAt: run.startedAt ?? found.firstAt,
    endedAt: state?.at ?? run.endedAt ?? found.lastAt,
    elapsedMs: state?.elapsedMs ?? run.elapsedMs + found.stepMs,
    ...(state && { state: state.state, error: state.error ?? null, crash: state.crash }),
  };
}
