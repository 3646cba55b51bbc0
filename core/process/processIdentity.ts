/** Tells a process from a later one that got its id. */
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/**
 * When a process started, in a form that is good for nothing but comparison.
 * @returns null where no such process lives; `unknown` where it lives and the platform will not say since when
 */
export function processStart(pid: number): string | null {
  if (!isAlive(pid)) return null;
  if (process.platform === 'linux') return linuxStart(pid);
  try {
    if (process.platform === 'win32')
      return execFileSync(
        'powershell.exe',
        ['-NoProfile', '-NonInteractive', '-Command', `(Get-Process -Id ${pid}).StartTime.Ticks`],
        { encoding: 'utf8', timeout: 10_000, windowsHide: true, stdio: ['ignore', 'pipe', 'ignore'] },
      ).trim();
    const start = execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
      timeout: 10_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
    return start === '' ? null : start;
  } catch {
    return 'unknown';
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: there is one, and it is somebody else's.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Field 22 of /proc/PID/stat, in clock ticks since boot; the boot is part of `machineIdentity`. */
function linuxStart(pid: number): string | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? null : 'unknown';
  }
  // The second field is the program's name in parentheses and may hold spaces and parentheses of its own.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A zombie has ended; its parent just has not looked yet.
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  return fields[19] ?? 'unknown';
}

/**
 * Names the set of processes that a process id is unique in: this boot of this machine, and in a container that
 * container. Two homes' users with different ones cannot ask about each other's processes.
 */
export function machineIdentity(): string {
  const parts = [hostname()];
  if (process.platform === 'linux') {
    for (const read of [
      () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      () => readlinkSync('/proc/self/ns/pid'),
    ])
      try {
        parts.push(read());
      } catch {
        // Hardened systems hide these; the name of the machine is left.
      }
  }
  return parts.join(' ');
}
