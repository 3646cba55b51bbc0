import { defineStore } from 'pinia';
import { computed, shallowRef, triggerRef } from 'vue';
import type { Run } from '../../core/shared/run/run.ts';
import { isLive } from '../../core/shared/run/transitions.ts';
import { useFrameBatch } from '../composables/useFrameBatch.ts';
import { useHost } from './host.ts';

/** Every run, as the host last told it. */
export const useRunStore = defineStore('run', () => {
  const host = useHost();
  const byId = shallowRef(new Map<string, Run>());
  const loaded = shallowRef(false);
  /** When each run's times were true, to count on from there. */
  const seenAt = new Map<string, number>();
  const announce = useFrameBatch(() => triggerRef(byId));

  const runs = computed(() => [...byId.value.values()].sort((a, b) => b.createdAt - a.createdAt));
  const live = computed(() => runs.value.filter(({ state }) => isLive(state)));

  function put(run: Run): void {
    byId.value.set(run.id, run);
    seenAt.set(run.id, Date.now());
    announce.schedule();
  }

  /** Begins to follow the host; once, from main.ts. */
  function start(): void {
    host.on('runChanged', put);
    host.on('runRemoved', ({ id }) => {
      byId.value.delete(id);
      announce.schedule();
    });
    host.on('runStepped', ({ id, steps }) => {
      const run = byId.value.get(id);
      const step = steps.at(-1);
      if (!run || !step || step.step < run.step) return;
      byId.value.set(id, {
        ...run,
        step: step.step,
        loss: step.loss,
        tokensPerSecond: step.tokensPerSecond,
      });
      announce.schedule();
    });
    host.onConnected(() => void refresh());
  }

  async function refresh(): Promise<void> {
    try {
      const list = await host.call('listRuns', {});
      byId.value = new Map(list.map((run) => [run.id, run]));
      for (const run of list) seenAt.set(run.id, Date.now());
      loaded.value = true;
    } catch {
      // The connection went away again; its return brings us back here.
    }
  }

  /** Elapsed training time, counted on while the run is running. */
  function elapsedMs(run: Run, now: number): number {
    const since = seenAt.get(run.id);
    return run.state === 'running' && since !== undefined
      ? run.elapsedMs + Math.max(0, now - since)
      : run.elapsedMs;
  }

  async function command(
    name: 'pauseRun' | 'continueRun' | 'stopRun' | 'resumeRun',
    id: string,
  ): Promise<void> {
    put(await host.call(name, { id }));
  }
  async function update(id: string, change: { name?: string; note?: string }): Promise<void> {
    put(await host.call('updateRun', { id, ...change }));
  }
  async function remove(id: string): Promise<void> {
    await host.call('removeRun', { id });
    byId.value.delete(id);
    announce.schedule();
  }

  return { byId, runs, live, loaded, start, elapsedMs, command, update, remove };
});
