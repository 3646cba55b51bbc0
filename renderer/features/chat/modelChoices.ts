import { computed } from 'vue';
import { formatCount } from '../../../core/shared/format.ts';
import { isOnnxModel } from '../../../core/shared/model/storedDtype.ts';
import { methodWords } from '../../composables/runFigures.ts';
import { useLibraryStore } from '../../stores/libraryStore.ts';
import { useRunStore } from '../../stores/runStore.ts';

export interface ModelChoice {
  /** As the contract takes it: a name of the library, or `run:ID`. */
  ref: string;
  title: string;
  detail: string;
  group: 'Runs' | 'Library';
}

/** What can be talked to: runs with a checkpoint, newest first, then the library. */
export function useModelChoices() {
  const runStore = useRunStore();
  const library = useLibraryStore();
  const choices = computed<ModelChoice[]>(() => [
    ...runStore.runs
      .filter((run) => run.lastCheckpoint !== null)
      .map((run) => ({
        ref: `run:${run.id}`,
        title: run.name,
        detail: `${methodWords(run, true)} · step ${run.step}${run.state === 'running' ? ', training' : ''}`,
        group: 'Runs' as const,
      })),
    ...library.models.map((model) => ({
      ref: model.name,
      title: model.name,
      detail: [
        `${formatCount(model.parameters.total)} parameters`,
        ...(isOnnxModel(model.storedDtypes) ? model.storedDtypes : []),
      ].join(' · '),
      group: 'Library' as const,
    })),
  ]);

  /** The name that people gave it; a reference may name a run by id or by name. */
  function titleOf(ref: string): string {
    if (!ref.startsWith('run:')) return ref;
    const run = ref.slice(4);
    return runStore.byId.get(run)?.name ?? run;
  }
  /** The base beside which a run's model is best read. */
  function baseOf(ref: string): string | null {
    const run = ref.startsWith('run:') ? runStore.byId.get(ref.slice(4)) : undefined;
    const base = run && library.models.find(({ name }) => name === run.modelName);
    return base?.name ?? choices.value.find((choice) => choice.ref !== ref)?.ref ?? null;
  }
  /** Whether its tokens go to experts. */
  function hasExperts(ref: string): boolean {
    const name = ref.startsWith('run:') ? ref.slice(4) : ref;
    const run = runStore.byId.get(name) ?? runStore.runs.find((one) => one.name === name);
    return run !== undefined && (run.config.method === 'pesc' || run.config.method === 'upcycle');
  }
  return { choices, titleOf, baseOf, hasExperts };
}
