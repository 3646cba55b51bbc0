/**
 * The host's end of a process that computes: how it is started, heard, and ended, and how it ended. What is said between
 * them is the business of core/engine and core/data.
 */
import { fork } from 'node:child_process';
import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { oomKills } from './oomKills.ts';

/** A process as Node (`child_process.fork`) and Electron (`utilityProcess.fork`) can both give it. */
export interface ChildHandle {
  readonly pid: number | null;
  send(message: unknown): void;
  /** Ends what it is connected by, which asks it to end by itself. */
  disconnect(): void;
  /** At once and without asking (SIGKILL). */
  kill(): void;
  onMessage(listener: (message: unknown) => void): void;
  /** Standard output and error, as text in any pieces. */
  onOutput(listener: (text: string) => void): void;
  /** Once, also when it could not be started: then both are null. */
  onExit(listener: (exitCode: number | null, signal: string | null) => void): void;
}

/** @param name what the system's lists of processes may call it */
export type SpawnProcess = (entry: string, name: string) => ChildHandle;

export interface ProcessEnd {
  exitCode: number | null;
  signal: string | null;
  /** The last lines of what it wrote; the last says so where this side ended it, or the system for want of memory. */
  stderrTail: string[];
}

export interface SupervisedProcess {
  readonly pid: number | null;
  send(message: unknown): void;
  /** Asks it to end; kills it when it has not within `graceMs`. */
  close(graceMs?: number): Promise<ProcessEnd>;
  /** `why` becomes the last line of its output. */
  kill(why?: string): void;
  /** Never rejects. */
  readonly ended: Promise<ProcessEnd>;
}

export interface SuperviseOptions {
  entry: string;
  name: string;
  onMessage(message: unknown): void;
  spawn?: SpawnProcess;
  /** Without a message for so long it is taken for hung, and killed; a process that may say nothing needs none. */
  silenceMs?: number;
}

/** Between normal (0) and idle (19): about a third of a processor that others want too. */
export const computingNiceness = 5;
const tailLines = 50;
const tailLineLength = 2000;
const tickMs = 1000;
/** Until its first message: a busy machine is slow to start a process. */
const startMs = 60_000;
/** How long after its end the last of its output may be read; a grandchild may hold the pipe open for ever. */
const outputMs = 1000;

export const forkProcess: SpawnProcess = (entry) => {
  const child = fork(entry, [], {
    serialization: 'advanced',
    // Flags of this process, such as a debugger's port, are not the child's.
    execArgv: [],
    // Standard output belongs to the host: a command may print JSON there.
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  yieldToOthers(child.pid);
  return {
    get pid() {
      return child.pid ?? null;
    },
    send(message) {
      // A channel that has just closed is told by `exit`.
      if (child.connected) child.send(message as object, () => {});
    },
    disconnect() {
      if (child.connected) child.disconnect();
    },
    kill: () => void child.kill('SIGKILL'),
    onMessage: (listener) => void child.on('message', listener),
    onOutput(listener) {
      for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', listener);
    },
    onExit(listener) {
      // Node's `close`, which waits for the output, does not come after a disconnect of this side.
      const read = [child.stdout, child.stderr].map(
        (stream) => new Promise<void>((resolve) => stream?.once('close', resolve)),
      );
      child.once('exit', (exitCode, signal) => {
        const late = sleep(outputMs, undefined, { ref: false });
        void Promise.race([Promise.all(read), late]).then(() => listener(exitCode, signal));
      });
      child.once('error', () => {
        if (child.pid === undefined) listener(null, null);
      });
    },
  };
};

/** What computes for minutes gives way to what answers at once: the host, and the rest of its user's desk. */
function yieldToOthers(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, computingNiceness);
  } catch {
    // Ended already, or the system does not allow it: it computes all the same.
  }
}

export function superviseProcess(options: SuperviseOptions): SupervisedProcess {
  const { entry, name, onMessage, spawn = forkProcess, silenceMs } = options;
  const tail: string[] = [];
  let partial = '';
  const note = (line: string) => {
    if (line.trim() !== '') tail.push(line.slice(0, tailLineLength));
    if (tail.length > tailLines) tail.shift();
  };
  const killsBefore = oomKills();
  const child = spawn(entry, name);
  let killedHere = false;

  // Silence is counted in this process's own ticks: while a laptop sleeps, neither side is at fault.
  let silentTicks = 0;
  let heard = false;
  const watch =
    silenceMs === undefined
      ? undefined
      : setInterval(() => {
          silentTicks++;
          const limitMs = heard ? silenceMs : Math.max(silenceMs, startMs);
          if (silentTicks * tickMs < limitMs) return;
          kill(`no sign of life for ${limitMs / 1000} s: killed as hung`);
        }, tickMs);
  watch?.unref();

  child.onMessage((message) => {
    silentTicks = 0;
    heard = true;
    onMessage(message);
  });
  child.onOutput((text) => {
    const lines = (partial + text).split('\n');
    partial = (lines.pop() ?? '').slice(-tailLineLength);
    lines.forEach(note);
  });

  function kill(why = ''): void {
    note(why);
    killedHere = true;
    child.kill();
  }

  const ended = new Promise<ProcessEnd>((resolve) => {
    child.onExit((exitCode, signal) => {
      clearInterval(watch);
      note(partial);
      if (signal === 'SIGKILL' && !killedHere && oomKills() > killsBefore)
        note('out of memory: the system ended this process to free some');
      resolve({ exitCode, signal, stderrTail: tail });
    });
  });

  return {
    get pid() {
      return child.pid;
    },
    send: (message) => child.send(message),
    kill,
    ended,
    async close(graceMs = 2000) {
      child.disconnect();
      const force = setTimeout(() => kill(), graceMs);
      const end = await ended;
      clearTimeout(force);
      return end;
    },
  };
}
