import { readFileSync } from 'node:fs';

/**
 * How many processes Linux has killed for want of memory, in this control group or (outside one) on this machine; 0 where
 * the system does not tell. Two readings that differ tell such a kill from one by a person.
 */
export function oomKills(): number {
  for (const file of ['/sys/fs/cgroup/memory.events', '/proc/vmstat']) {
    try {
      const count = /^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1];
      if (count !== undefined) return Number(count);
    } catch {
      // No such file: not Linux, or not in a control group.
    }
  }
  return 0;
}
