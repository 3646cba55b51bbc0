import { defineStore } from 'pinia';
import { computed, shallowRef, triggerRef } from 'vue';
import { isEnded, type Job } from '../../core/shared/job/job.ts';
import { useFrameBatch } from '../composables/useFrameBatch.ts';
import { useHost } from './host.ts';

const keptLines = 1000;

/** The job queue as the host last told it, and the logs of the jobs that someone looks at. */
export const useJobStore = defineStore('job', () => {
  const host = useHost();
  const byId = shallowRef(new Map<string, Job>());
  const loaded = shallowRef(false);
  /** When held jobs begin; null: when someone says so. */
  const startsAt = shallowRef<number | null>(null);
  const logs = shallowRef(new Map<string, string[]>());
  const announce = useFrameBatch(() => triggerRef(byId));
  const announceLogs = useFrameBatch(() => triggerRef(logs));

  const jobs = computed(() => [...byId.value.values()].sort((a, b) => b.createdAt - a.createdAt));
  /** What waits for a turn, in its order. */
  const waiting = computed(() =>
    jobs.value.filter(({ place }) => place !== null).sort((a, b) => a.place! - b.place!),
  );
  const active = computed(() => jobs.value.filter((job) => !isEnded(job.state)));

  function put(job: Job): void {
    byId.value.set(job.id, job);
    announce.schedule();
  }

  function start(): void {
    host.on('jobChanged', put);
    host.on('jobLogged', ({ id, line }) => {
      const lines = logs.value.get(id);
      if (!lines) return;
      lines.push(line);
      if (lines.length > keptLines) lines.splice(0, lines.length - keptLines);
      announceLogs.schedule();
    });
    host.on('queueChanged', ({ startsAt: at }) => void (startsAt.value = at));
    host.onConnected(() => void refresh());
  }
  async function refresh(): Promise<void> {
    try {
      byId.value = new Map((await host.call('listJobs', {})).map((job) => [job.id, job]));
      loaded.value = true;
      startsAt.value = (await host.call('getQueue', {})).startsAt;
      for (const id of logs.value.keys()) await openLog(id);
    } catch {
      // The connection went away again; its return brings us back here.
    }
  }
  async function openLog(id: string): Promise<void> {
    const { lines } = await host.call('getJobLog', { id });
    logs.value.set(id, lines.slice(-keptLines));
    announceLogs.schedule();
  }
  function closeLog(id: string): void {
    logs.value.delete(id);
  }
  async function command(name: 'cancelJob' | 'pauseJob' | 'resumeJob', id: string): Promise<void> {
    put(await host.call(name, { id }));
  }
  async function move(id: string, place: number): Promise<void> {
    put(await host.call('moveJob', { id, place }));
  }
  async function hold(id: string, held: boolean): Promise<void> {
    put(await host.call('holdJob', { id, held }));
  }
  async function startQueue(): Promise<void> {
    await host.call('startQueue', {});
  }
  async function schedule(at: number | null): Promise<void> {
    await host.call('setQueue', { startsAt: at });
  }
  return {
    byId,
    jobs,
    active,
    waiting,
    loaded,
    startsAt,
    logs,
    start,
    openLog,
    closeLog,
    command,
    move,
    hold,
    startQueue,
    schedule,
  };
});
