/** What runs are listed, sorted, grouped and filtered by: one name each, in the table, in filters and on the command line. */
import { CaravanError } from '../contract/errors.ts';
import type { Run, RunState } from './run.ts';
import { runFields, runFieldShapes, unusedFields } from './runFields.ts';

export type RunValue = number | string | boolean | null;

export interface RunProperty {
  /** As filters and `--columns` write it. */
  name: string;
  title: string;
  /** `time`: milliseconds that something took; `date`: milliseconds since 1970. */
  kind: 'number' | 'text' | 'flag' | 'time' | 'date' | 'share';
  /** A setting of run.yaml rather than something that happened. */
  setting: boolean;
  /** Null where there is nothing (yet). */
  of(run: Run): RunValue;
}

/** In the order in which they ask for attention. */
export const stateOrder = [
  'running',
  'stopping',
  'paused',
  'queued',
  'interrupted',
  'failed',
  'stopped',
  'completed',
] as const satisfies readonly RunState[];

/** Held-out loss after against before, as a share of before: -0.12 is twelve per cent lower. */
export function heldOutChange(run: Run): number | null {
  const before = run.firstEvaluation?.loss;
  const after = run.lastEvaluation?.loss;
  if (before == null || after == null || run.firstEvaluation?.step === run.lastEvaluation?.step) return null;
  return (after - before) / before;
}

const happened: Omit<RunProperty, 'setting'>[] = [
  { name: 'state', title: 'State', kind: 'text', of: (run) => run.state },
  { name: 'name', title: 'Run', kind: 'text', of: (run) => run.name },
  { name: 'id', title: 'Id', kind: 'text', of: (run) => run.id },
  {
    name: 'tags',
    title: 'Tags',
    kind: 'text',
    of: (run) => (run.tags.length > 0 ? run.tags.join(' ') : null),
  },
  { name: 'note', title: 'Note', kind: 'text', of: (run) => (run.note === '' ? null : run.note) },
  { name: 'starred', title: 'Star', kind: 'flag', of: (run) => run.starred },
  { name: 'archived', title: 'Archived', kind: 'flag', of: (run) => run.archived },
  { name: 'model', title: 'Model', kind: 'text', of: (run) => run.modelName },
  { name: 'mix', title: 'Mix', kind: 'text', of: (run) => run.mixName },
  { name: 'step', title: 'Step', kind: 'number', of: (run) => run.step },
  { name: 'steps', title: 'Steps in all', kind: 'number', of: (run) => run.totalSteps },
  {
    name: 'progress',
    title: 'Steps',
    kind: 'share',
    of: (run) => (run.totalSteps ? run.step / run.totalSteps : null),
  },
  { name: 'loss', title: 'Loss', kind: 'number', of: (run) => run.loss },
  { name: 'heldOut', title: 'Held-out loss', kind: 'number', of: (run) => run.lastEvaluation?.loss ?? null },
  {
    name: 'heldOutBefore',
    title: 'Held-out before',
    kind: 'number',
    of: (run) => run.firstEvaluation?.loss ?? null,
  },
  { name: 'change', title: 'Change', kind: 'share', of: heldOutChange },
  { name: 'tokensPerSecond', title: 'Tokens/s', kind: 'number', of: (run) => run.tokensPerSecond },
  { name: 'took', title: 'Took', kind: 'time', of: (run) => run.elapsedMs },
  { name: 'resumed', title: 'Resumed', kind: 'number', of: (run) => run.attempt },
  { name: 'created', title: 'Started', kind: 'date', of: (run) => run.createdAt },
  { name: 'ended', title: 'Ended', kind: 'date', of: (run) => run.endedAt },
];

const kinds = { number: 'number', flag: 'flag', text: 'text', choice: 'text' } as const;

const settings = [...runFieldShapes()]
  .filter(([key]) => !happened.some(({ name }) => name === key))
  .map(([key, shape]): RunProperty => {
    const of = (run: Run): RunValue =>
      unusedFields[run.config.method].includes(key) ? null : (run.config[key] ?? null);
    return { name: key, title: runFields[key].title, kind: kinds[shape.kind], setting: true, of };
  });

export const runProperties: readonly RunProperty[] = [
  ...happened.map((property) => ({ ...property, setting: false })),
  ...settings,
];

const byName = new Map(runProperties.map((property) => [property.name.toLowerCase(), property]));

export function runProperty(name: string): RunProperty | undefined {
  return byName.get(name.toLowerCase());
}

/** @returns the property of that name. @throws `bad_option` naming those there are */
export function namedProperty(name: string): RunProperty {
  const property = runProperty(name);
  if (!property)
    throw new CaravanError('bad_option', `runs have no '${name}'`, {
      mend: `They have ${runProperties.map((one) => one.name).join(', ')}.`,
    });
  return property;
}

/** What is unknown stands last in either direction; what is equal stays newest first. */
export function sortRuns(runs: readonly Run[], by: string, descending: boolean): Run[] {
  const property = runProperty(by);
  const sign = descending ? -1 : 1;
  const key = (run: Run): RunValue => {
    const value = property?.of(run) ?? null;
    if (property?.name === 'state') return stateOrder.indexOf(run.state);
    return typeof value === 'string' ? value.toLowerCase() : value;
  };
  return runs
    .map((run) => ({ run, value: key(run) }))
    .sort((a, b) => {
      if (a.value === b.value) return b.run.createdAt - a.run.createdAt;
      if (a.value === null) return 1;
      if (b.value === null) return -1;
      return (a.value < b.value ? -1 : 1) * sign;
    })
    .map(({ run }) => run);
}
