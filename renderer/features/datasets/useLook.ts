import { computed, onScopeDispose, shallowRef, watch, type Ref } from 'vue';
import { CaravanError, type ContractErrorData } from '../../../core/shared/contract/errors.ts';
import type { DatasetRef, Yardstick } from '../../../core/shared/dataset/look.ts';
import { isEnded, type Job } from '../../../core/shared/job/job.ts';
import { useHost } from '../../stores/host.ts';
import { useJobStore } from '../../stores/jobStore.ts';

export type LookState =
  | { kind: 'opening' }
  /** The first look at a dataset: its index is being made. */
  | { kind: 'preparing'; jobId: string }
  | { kind: 'ready'; measured: boolean }
  | { kind: 'failed'; problem: ContractErrorData };

/** Opens a dataset for looking, waits for its index, and opens it again with every other yardstick. */
export function useLook(of: DatasetRef, yardstick: Ref<Yardstick | null>) {
  const host = useHost();
  const jobStore = useJobStore();
  const state = shallowRef<LookState>({ kind: 'opening' });
  const measuring = shallowRef<string | null>(null);
  let asked = 0;

  async function open(): Promise<void> {
    const own = ++asked;
    try {
      const { job, measured } = await host.call('openLook', { of, yardstick: yardstick.value });
      if (own !== asked) return;
      state.value = job ? { kind: 'preparing', jobId: job.id } : { kind: 'ready', measured };
    } catch (error) {
      if (own === asked) state.value = { kind: 'failed', problem: CaravanError.from(error).toData() };
    }
  }
  async function measure(): Promise<void> {
    if (!yardstick.value) return;
    const job = await host.call('measureDataset', { of, yardstick: yardstick.value });
    measuring.value = job.id;
  }

  const waitedFor = computed((): Job | null => {
    const id = state.value.kind === 'preparing' ? state.value.jobId : measuring.value;
    return id === null ? null : (jobStore.byId.get(id) ?? null);
  });
  watch(waitedFor, (job) => {
    if (!job || !isEnded(job.state)) return;
    measuring.value = null;
    if (job.error && state.value.kind === 'preparing') state.value = { kind: 'failed', problem: job.error };
    else void open();
  });
  watch(yardstick, () => void open(), { immediate: true });
  const forget = host.onConnected(() => {
    if (state.value.kind !== 'ready') void open();
  });
  onScopeDispose(() => {
    asked++;
    forget();
  });
  return { state, job: waitedFor, open, measure };
}
