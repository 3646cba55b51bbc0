import { stat } from 'node:fs/promises';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { EmitEvent, Handlers } from '../../shared/contract/service.ts';
import { checkName } from '../../shared/names.ts';
import { labelOf, type Run, type RunLabel } from '../../shared/run/run.ts';
import { checkAction } from '../../shared/run/transitions.ts';
import type { Store } from '../../store/openStore.ts';
import { createRunRecorder } from './createRunRecorder.ts';
import type { RunRecord, RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';
import type { LiveRun } from './superviseRun.ts';

interface LabelDeps {
  /** @throws `not_found` */
  recordOf: (id: string) => RunRecord;
  liveRun: (id: string) => LiveRun | null;
  store: Store;
  runs: RunTable;
  steps: StepTable;
  emit: EmitEvent;
  now: () => number;
  warn: (message: string) => void;
}

/** What people call runs and mark them with: names, notes, tags, stars, the archive and the trash. */
export function createRunLabels(deps: LabelDeps): Pick<Handlers, 'updateRun' | 'trashRun' | 'restoreRun'> {
  const { recordOf, liveRun, store, runs, steps, emit, now, warn } = deps;
  /** One after the other: each cuts the file to what the database says is whole, and appends. */
  let turn = Promise.resolve();

  async function mark(record: RunRecord, change: Partial<RunLabel>): Promise<Run> {
    const label = { ...labelOf(record.run), ...change };
    const entry = liveRun(record.run.id);
    if (entry) {
      entry.mark(label);
      return entry.record.run;
    }
    const run = { ...record.run, ...label };
    runs.save(record.key, run);
    emit('runChanged', run);
    await (turn = turn.then(() => keepInFolder(run.id)));
    return run;
  }

  /** metrics.jsonl holds what a run is called too, so that nothing is lost with the database. */
  async function keepInFolder(id: string): Promise<void> {
    const record = runs.byId(id);
    if (!record) return;
    const { run, key, metricsBytes } = record;
    const label = labelOf(run);
    const entry = liveRun(id);
    if (entry) {
      entry.mark(label);
      return;
    }
    const folder = await stat(run.dir).catch(() => null);
    if (!folder?.isDirectory()) return;
    const recorder = await createRunRecorder(
      { dir: run.dir, key, metricsBytes },
      {
        store,
        runs,
        steps,
        now,
        beforeCommit: () => undefined,
        onFlushed: () => undefined,
        onTrouble: (error) => warn(`the name of run ${label.name} is not in its folder: ${error.message}`),
      },
    );
    recorder.add({ type: 'label', ...label });
    await recorder.close();
  }

  return {
    async updateRun({ id, name, note, tags, starred, archived }) {
      const record = recordOf(id);
      if (name !== undefined) {
        checkName(name);
        const holder = runs.byName(name);
        if (holder && holder.run.id !== id)
          throw new CaravanError('name_taken', `another run is named '${name}'`, {
            place: { field: 'name' },
            mend:
              holder.run.trashedAt === null
                ? 'Choose another name.'
                : 'It is in the trash: choose another name.',
          });
      }
      return mark(record, {
        ...(name !== undefined && { name }),
        ...(note !== undefined && { note }),
        ...(tags !== undefined && { tags: [...new Set(tags)] }),
        ...(starred !== undefined && { starred }),
        ...(archived !== undefined && { archived }),
      });
    },
    async trashRun({ id }) {
      const record = recordOf(id);
      checkAction(record.run, 'remove');
      return record.run.trashedAt === null ? mark(record, { trashedAt: now() }) : record.run;
    },
    async restoreRun({ id }) {
      const record = recordOf(id);
      return record.run.trashedAt === null ? record.run : mark(record, { trashedAt: null });
    },
  };
}
