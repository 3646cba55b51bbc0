import { readFile } from 'node:fs/promises';

/** Resident bytes of a process; null where the system does not tell, or the process is gone. */
export async function processMemory(pid: number): Promise<number | null> {
  if (pid === process.pid) return process.memoryUsage.rss();
  // Only Linux has this file.
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  return kilobytes === undefined ? null : Number(kilobytes) * 1024;
}
