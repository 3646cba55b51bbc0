/** What the window says of models: who uses one, how its parameters part, what its checks found. */
import type { Export } from '../../../core/shared/model/export.ts';
import type { Model, ModelCheck } from '../../../core/shared/model/model.ts';
import type { Run } from '../../../core/shared/run/run.ts';

/** Runs name their model by name, id or path. */
export function runsOf({ id, name, dir }: Model, runs: readonly Run[]): Run[] {
  return runs.filter(({ config }) => [id, name, dir].includes(config.model));
}

/** An export names the folder and the tensors of its base. */
export function exportsOf({ dir, identity }: Model, made: readonly Export[]): Export[] {
  return made.filter(({ base }) =>
    identity === null || base.identity === '' ? base.name === dir : base.identity === identity,
  );
}

export interface ParameterGroup {
  title: string;
  count: number;
  share: number;
}

/** The groups of a model's parameters that are not empty; they sum to the total. */
export function parameterGroups({
  parameters,
  experts,
}: Pick<Model, 'parameters' | 'experts'>): ParameterGroup[] {
  const { embedding, attention, mlp, norms, head, total } = parameters;
  const rest = total - embedding - attention - mlp - norms - head;
  const groups: [string, number][] = [
    ['Embedding', embedding],
    ['Attention', attention],
    [experts?.adapterDim === null ? 'Expert FFNs' : 'MLP', mlp],
    [experts?.adapterDim === null ? 'Routers' : 'Experts and routers', rest],
    ['Norms', norms],
    ['Output head', head],
  ];
  return groups
    .filter(([, count]) => count > 0)
    .map(([title, count]) => ({ title, count, share: count / total }));
}

/** The engine holds it in single precision: 9.99999974e-6 was written as 1e-5. */
export function formatEpsilon(value: number): string {
  return Number(value.toPrecision(6)).toExponential();
}

/** How the library has it. */
export function heldWord({ copiedFrom, hub }: Pick<Model, 'copiedFrom' | 'hub'>, upper = false): string {
  const word = hub ? 'from the hub' : copiedFrom === undefined ? 'linked' : 'copied';
  return upper ? word[0]!.toUpperCase() + word.slice(1) : word;
}

export const checkTitles: Record<ModelCheck['name'], string> = {
  'round-trip': 'Text comes back',
  'plain-text': 'Rows stay text',
  template: 'Template',
  stop: 'Stop tokens',
};

/** The largest difference at step 0 of any run: crafted models begin as the base itself. */
export function worstStepZero(runs: readonly Run[]): { runs: number; difference: number } | null {
  const measured = runs.flatMap(({ stepZeroDifference }) =>
    stepZeroDifference === null ? [] : [stepZeroDifference],
  );
  return measured.length === 0
    ? null
    : { runs: measured.length, difference: Math.max(...measured.map(Math.abs)) };
}

export function matches({ name, family, architecture, dir, storedDtypes }: Model, search: string): boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [name, family, architecture, dir, ...storedDtypes].join('\n').toLowerCase();
  return words.every((word) => text.includes(word));
}

/** UTF-8, as a vocabulary's table shows it: "e2 80 94". */
export function bytesOf(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** What was exported: a run, or a model as it came. */
export function exportedName({ run, base }: Pick<Export, 'run' | 'base'>): string {
  return run?.name ?? base.name.split(/[\\/]/).findLast((part) => part !== '') ?? base.name;
}
