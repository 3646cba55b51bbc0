/** The columns of the runs table: what they show is the template's, how they sort and filter is here. */
import type { Run } from '../../../core/shared/run/run.ts';
import { heldOutChange } from '../../../core/shared/run/runProperties.ts';
import { methodWords } from '../../composables/runFigures.ts';

export const sortKeys = [
  'state',
  'name',
  'model',
  'mix',
  'method',
  'progress',
  'loss',
  'heldOut',
  'change',
  'rate',
  'created',
] as const;
export type SortKey = (typeof sortKeys)[number];
export interface Sort {
  key: SortKey;
  descending: boolean;
}

const stateOrder = [
  'running',
  'stopping',
  'paused',
  'queued',
  'interrupted',
  'failed',
  'stopped',
  'completed',
] as const satisfies readonly Run['state'][];

const values: Record<SortKey, (run: Run) => string | number | null> = {
  state: (run) => stateOrder.indexOf(run.state),
  name: (run) => run.name.toLowerCase(),
  model: (run) => run.modelName.toLowerCase(),
  mix: (run) => run.mixName.toLowerCase(),
  method: (run) => methodWords(run, true),
  progress: (run) => (run.totalSteps ? run.step / run.totalSteps : null),
  loss: (run) => run.loss,
  heldOut: (run) => run.lastEvaluation?.loss ?? null,
  change: heldOutChange,
  rate: (run) => run.tokensPerSecond,
  created: (run) => run.createdAt,
};

/** What is unknown stands last in either direction; what is equal stays newest first. */
export function sortRuns(runs: readonly Run[], { key, descending }: Sort): Run[] {
  const value = values[key];
  const sign = descending ? -1 : 1;
  return [...runs].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === right) return b.createdAt - a.createdAt;
    if (left === null) return 1;
    if (right === null) return -1;
    return (left < right ? -1 : 1) * sign;
  });
}

/** Every word must occur in the run's name, model, mix, method, state or note. */
export function filterRuns(runs: readonly Run[], text: string): Run[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [...runs];
  return runs.filter((run) => {
    const all = [run.name, run.modelName, run.mixName, methodWords(run, true), run.state, run.note]
      .join('\n')
      .toLowerCase();
    return words.every((word) => all.includes(word));
  });
}
