/** The command line as people run it: whole processes in a home of the test's own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readLocks } from '../../core/host/HostLock.ts';
import { processStart } from '../../core/process/processIdentity.ts';

const command = fileURLToPath(new URL('../../bin/caravan.mjs', import.meta.url));

export interface CaravanResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CaravanHome {
  readonly home: string;
  /** A folder to work in. */
  readonly folder: string;
  /** Runs a verb to its end. */
  run(...args: string[]): Promise<CaravanResult>;
  /** As `run`, with what it reads from standard input. */
  runWithInput(input: string, ...args: string[]): Promise<CaravanResult>;
  /** Runs a verb with `--json` that must succeed. @returns its document, or its documents where there are several lines */
  json<T = unknown>(...args: string[]): Promise<T>;
  lines<T = unknown>(...args: string[]): Promise<T[]>;
  /** Starts a verb that goes on. */
  start(...args: string[]): { child: ChildProcess; ended: Promise<CaravanResult>; output: () => string };
  /** Writes a file into the folder. @returns its path */
  write(name: string, content: string | Buffer): string;
  hostPid(): number | null;
  /** Ends the home's host, with its state kept. */
  endHost(): Promise<void>;
}

export function makeCaravanHome(env: Record<string, string> = {}): CaravanHome {
  const base = realpathSync(mkdtempSync(join(tmpdir(), 'caravan-')));
  const home = join(base, 'home');

  const start = (...args: string[]) => startWith(null, args);

  function startWith(input: string | null, args: string[]) {
    const child = spawn(process.execPath, [command, ...args], {
      cwd: base,
      env: { ...process.env, CARAVAN_HOME: home, CARAVAN_HOST_IDLE_S: '60', ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.stdin.end(input ?? '');
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const ended = new Promise<CaravanResult>((resolve) =>
      child.on('close', (code) => resolve({ code, stdout, stderr })),
    );
    return { child, ended, output: () => stdout };
  }

  async function succeed(args: string[]): Promise<string> {
    const { code, stdout, stderr } = await start(...args, '--json').ended;
    if (code !== 0) throw new Error(`caravan ${args.join(' ')} ended with ${code}: ${stderr}\n${stdout}`);
    return stdout;
  }

  const livingHost = () => readLocks(home).find(({ life }) => life === 'alive')?.record.pid ?? null;

  return {
    home,
    folder: base,
    run: (...args) => start(...args).ended,
    runWithInput: (input, ...args) => startWith(input, args).ended,
    async json<T>(...args: string[]) {
      return JSON.parse(await succeed(args)) as T;
    },
    async lines<T>(...args: string[]) {
      return (await succeed(args))
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as T);
    },
    start,
    write(name, content) {
      writeFileSync(join(base, name), content);
      return join(base, name);
    },
    hostPid: livingHost,
    async endHost() {
      const pid = livingHost();
      if (pid === null) return;
      process.kill(pid, 'SIGTERM');
      for (let waited = 0; processStart(pid) !== null; waited += 20) {
        if (waited > 60_000) process.kill(pid, 'SIGKILL');
        await sleep(20);
      }
    },
  };
}
