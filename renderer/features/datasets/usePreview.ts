import { computed, shallowRef, watch, type Ref } from 'vue';
import { CaravanError, type ContractErrorData } from '../../../core/shared/contract/errors.ts';
import type { MixPreview } from '../../../core/shared/dataset/preview.ts';
import type { Recipe } from '../../../core/shared/dataset/recipe.ts';
import { isEnded } from '../../../core/shared/job/job.ts';
import { useHost } from '../../stores/host.ts';
import { useJobStore } from '../../stores/jobStore.ts';

/** What a recipe would give, as the host counted it; it stays in view, marked as old, while the recipe changes. */
export function usePreview(recipe: Ref<Recipe | null>, baseDir: () => string) {
  const host = useHost();
  const jobStore = useJobStore();
  const preview = shallowRef<MixPreview | null>(null);
  const problem = shallowRef<ContractErrorData | null>(null);
  const jobId = shallowRef<string | null>(null);
  /** The recipe that was asked about. */
  const asked = shallowRef('');

  const job = computed(() => (jobId.value === null ? null : (jobStore.byId.get(jobId.value) ?? null)));
  const running = computed(() => jobId.value !== null);
  const text = computed(() => JSON.stringify(recipe.value));
  const current = computed(() => preview.value !== null && asked.value === text.value);

  async function start(): Promise<void> {
    if (!recipe.value || running.value) return;
    problem.value = null;
    asked.value = text.value;
    try {
      jobId.value = (await host.call('previewMix', { recipe: recipe.value, baseDir: baseDir() })).id;
    } catch (error) {
      problem.value = CaravanError.from(error).toData();
    }
  }
  watch(job, async (now) => {
    if (!now || !isEnded(now.state)) return;
    jobId.value = null;
    if (now.state !== 'completed' || now.subjectId === null) {
      problem.value = now.state === 'cancelled' ? null : now.error;
      preview.value = null;
      return;
    }
    try {
      preview.value = await host.call('readMixPreview', { id: now.subjectId });
    } catch (error) {
      problem.value = CaravanError.from(error).toData();
    }
  });
  const stop = async () => void (jobId.value !== null && (await jobStore.command('cancelJob', jobId.value)));
  return { preview, problem, job, running, current, start, stop };
}
