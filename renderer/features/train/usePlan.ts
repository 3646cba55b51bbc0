/** The plan of a configuration, a moment after it stopped changing. */
import { tryOnScopeDispose, watchDebounced } from '@vueuse/core';
import { computed, shallowRef, type Ref } from 'vue';
import { CaravanError, type ContractErrorData } from '../../../core/shared/contract/errors.ts';
import type { Plan } from '../../../core/shared/run/run.ts';
import type { RunConfig } from '../../../core/shared/run/runConfig.ts';
import { useHost } from '../../stores/host.ts';

export function usePlan(config: Ref<RunConfig | null>) {
  const host = useHost();
  const plan = shallowRef<Plan | null>(null);
  const problem = shallowRef<ContractErrorData | null>(null);
  /** The configuration that `plan` or `problem` is about. */
  const planned = shallowRef<string | null>(null);
  const measuring = shallowRef(false);
  const asked = computed(() => (config.value === null ? null : JSON.stringify(config.value)));
  const current = computed(() => asked.value !== null && planned.value === asked.value);

  async function ask(probe: boolean): Promise<void> {
    const wanted = config.value;
    const key = asked.value;
    if (wanted === null || key === null || host.state.value.kind !== 'connected') return;
    try {
      const answer = await host.call('planRun', { config: wanted, probe });
      if (key !== asked.value) return;
      plan.value = answer;
      problem.value = null;
    } catch (error) {
      if (key !== asked.value) return;
      problem.value = CaravanError.from(error).toData();
    }
    planned.value = key;
  }
  /** Times one step of the longest batch, for the time that the run will take. */
  async function measure(): Promise<void> {
    measuring.value = true;
    await ask(true);
    measuring.value = false;
  }
  watchDebounced(asked, () => void ask(false), { debounce: 250 });
  tryOnScopeDispose(host.onConnected(() => void ask(false)));

  return { plan, problem, current, measuring, measure };
}
