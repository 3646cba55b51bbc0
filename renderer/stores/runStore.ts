import { defineStore } from 'pinia';
import { computed, shallowRef, triggerRef } from 'vue';
import type { CallInput } from '../../core/shared/contract/contract.ts';
import type { Run } from '../../core/shared/run/run.ts';
import { isLive } from '../../core/shared/run/transitions.ts';
import { useFrameBatch } from '../composables/useFrameBatch.ts';
import { useHost } from './host.ts';

/** Runs that are asked for at once. */
const pageSize = 250;

/** Every run, as the host last told it. */
export const useRunStore = defineStore('run', () => {
  const host = useHost();
  const byId = shallowRef(new Map<string, Run>());
  const loaded = shallowRef(false);
  /** When each run's times were true, to count on from there. */
  const seenAt = new Map<string, number>();
  const announce = useFrameBatch(() => triggerRef(byId));

  const all = computed(() => [...byId.value.values()].sort((a, b) => b.createdAt - a.createdAt));
  /** The newest first; what lies in the trash is none of them. */
  const runs = computed(() => all.value.filter(({ trashedAt }) => trashedAt === null));
  const trashed = computed(() => all.value.filter(({ trashedAt }) => trashedAt !== null));
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

  /** In pages, so that the newest are on screen while thousands of older ones are on their way. */
  async function refresh(): Promise<void> {
    const known = new Set<string>();
    try {
      for (let after: string | undefined; ;) {
        const page = await host.call('listRuns', {
          limit: pageSize,
          ...(after !== undefined && { after }),
        });
        for (const run of page) {
          known.add(run.id);
          byId.value.set(run.id, run);
          seenAt.set(run.id, Date.now());
        }
        announce.schedule();
        after = page.at(-1)?.id;
        if (page.length < pageSize) break;
      }
      // What was removed while the connection was away. A run that began meanwhile is newer than all of them.
      const newest = Math.max(0, ...[...known].map((id) => byId.value.get(id)?.createdAt ?? 0));
      for (const { id, createdAt } of byId.value.values())
        if (!known.has(id) && createdAt <= newest) byId.value.delete(id);
      triggerRef(byId);
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
  async function update(id: string, change: Omit<CallInput<'updateRun'>, 'id'>): Promise<void> {
    put(await host.call('updateRun', { id, ...change }));
  }
  async function trash(id: string): Promise<void> {
    put(await host.call('trashRun', { id }));
  }
  async function restore(id: string): Promise<void> {
    put(await host.call('restoreRun', { id }));
  }
  async function remove(id: string): Promise<void> {
    await host.call('removeRun', { id });
    byId.value.delete(id);
    announce.schedule();
  }

  return { byId, runs, trashed, live, loaded, start, elapsedMs, command, update, trash, restore, remove };
});
