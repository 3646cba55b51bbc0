import { readJournal, removeJournal, type JournalLine } from '../../engine/client.ts';
import type { Store } from '../../store/openStore.ts';
import { createRunRecorder } from './createRunRecorder.ts';
import { note, type IndexedMetrics } from './indexMetrics.ts';
import { evaluationLine, openedLine, stepLine, type MetricsLine } from './metricsLog.ts';
import type { RunRecord, RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';

/**
 * Brings what an engine told when no host was left to hear it (its journal) into metrics.jsonl, tables and log, and removes
 * the journal. metrics.jsonl must be indexed up to its end.
 * @param found of metrics.jsonl; what is folded in is added to it
 * @throws what kept it from reaching the disk; the journal then stays
 */
export async function foldJournal(
  { store, runs, steps }: { store: Store; runs: RunTable; steps: StepTable },
  { key, run }: RunRecord,
  attempt: number,
  found: IndexedMetrics,
): Promise<void> {
  const journal = readJournal(run.dir);
  if (journal.length > 0) {
    let at = 0;
    let failure: Error | null = null;
    const recorder = await createRunRecorder(
      { dir: run.dir, key, metricsBytes: found.bytes },
      {
        store,
        runs,
        steps,
        now: () => at,
        beforeCommit: () => undefined,
        onFlushed: () => undefined,
        onTrouble: (error) => (failure ??= error),
      },
    );
    const lastStep = steps.last(key)?.step ?? 0;
    const evaluated = new Set(steps.evaluations(key).map(({ step }) => step));
    let unheard = 0;
    for (const line of journal) {
      at = line.at;
      for (const metrics of asMetrics(line, attempt, () => run.elapsedMs + found.stepMs)) {
        // The host may have been killed after it wrote a line and before it said so.
        if (metrics.type === 'step' && metrics.step <= lastStep) continue;
        if (metrics.type === 'evaluation' && evaluated.has(metrics.step)) continue;
        if (metrics.type === 'step') unheard++;
        recorder.add(metrics);
        note(found, metrics);
      }
      const text = asLog(line);
      if (text !== null) recorder.log(text);
    }
    recorder.log(`the engine outlived its host by ${unheard} steps: they are in the metrics`);
    await recorder.close();
    if (failure) throw failure;
    found.bytes = runs.byId(run.id)!.metricsBytes;
  }
  removeJournal(run.dir);
}

function asMetrics({ told, at }: JournalLine, attempt: number, elapsedMs: () => number): MetricsLine[] {
  switch (told.type) {
    case 'opened':
      return [openedLine(told.opened)];
    case 'steps':
      return told.steps.map((metrics) => stepLine(metrics, attempt, at));
    case 'evaluation':
      return [evaluationLine(told.evaluation)];
    case 'ended': {
      if (told.result.reason !== 'finished') return [];
      const { type: _, ...measured } = openedLine(told.result);
      const ending = { state: 'completed', error: null, crash: null, elapsedMs: elapsedMs() } as const;
      return [{ type: 'state', at, ...ending, ...measured }];
    }
    case 'failed': {
      const ending = { state: 'failed', error: told.error, crash: null, elapsedMs: elapsedMs() } as const;
      return [{ type: 'state', at, ...ending, stepZeroDifference: null, quantizationDifference: null }];
    }
    default:
      return [];
  }
}

function asLog({ told }: JournalLine): string | null {
  switch (told.type) {
    case 'phase':
      return told.phase;
    case 'checkpoint':
      return `checkpoint ${told.checkpoint.path}`;
    case 'log':
      return told.level === 'warning' ? `warning: ${told.message}` : told.message;
    case 'ended':
      return `${told.result.reason} at step ${told.result.step}`;
    case 'failed':
      return `failed: ${told.error.message}`;
    default:
      return null;
  }
}
