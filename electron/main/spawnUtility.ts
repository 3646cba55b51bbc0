import { setPriority } from 'node:os';
import { endMessage } from '../../core/process/parentLink.ts';
import { computingNiceness, type SpawnProcess } from '../../core/process/supervise.ts';
import type { ElectronApi } from './ElectronApi.ts';

/** What computes needs of the environment; the rest, tokens of other programs among it, stays with the app. */
const passedOn =
  /^(PATH|HOME|USER|USERPROFILE|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|WINDIR|APPDATA|LOCALAPPDATA|XDG_\w+|LD_LIBRARY_PATH|CARAVAN_\w+|HF_\w+|CUDA_\w+|NVIDIA_\w+|OMP_\w+|(HTTPS?|NO|ALL)_PROXY|SSL_CERT_\w+|NODE_EXTRA_CA_CERTS)$/i;

export function utilityEnvironment(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && passedOn.test(entry[0]),
    ),
  );
}

/** Starts the host's processes as Electron's utility processes: the packaged app cannot run as Node. Only once it is ready. */
export function spawnUtility({
  app,
  utilityProcess,
}: Pick<ElectronApi, 'app' | 'utilityProcess'>): SpawnProcess {
  return (entry, name) => {
    const child = utilityProcess.fork(entry, [], {
      serviceName: name,
      stdio: 'pipe',
      env: utilityEnvironment(process.env),
    });
    const outputListeners: ((text: string) => void)[] = [];
    let gone = false;
    let endedBySystem = false;
    child.once('spawn', () => {
      try {
        if (child.pid !== undefined) setPriority(child.pid, computingNiceness);
      } catch {
        // Ended already, or the system does not allow it: it computes all the same.
      }
    });
    // Electron gives an exit code alone; how the system ended the process comes by another way, before it.
    const onGone = (
      _event: unknown,
      details: { serviceName?: string; name?: string; reason: string; exitCode: number },
    ): void => {
      if (details.serviceName !== name && details.name !== name) return;
      if (details.reason === 'clean-exit') return;
      endedBySystem = details.reason === 'killed' || details.reason === 'oom';
      for (const listener of outputListeners) listener(`\nthe process ended: ${details.reason}\n`);
    };
    app.on('child-process-gone', onGone);
    return {
      get pid() {
        return child.pid ?? null;
      },
      send(message) {
        if (!gone) child.postMessage(message);
      },
      disconnect() {
        if (!gone) child.postMessage(endMessage);
      },
      kill() {
        // `child.kill()` asks with SIGTERM, which an addon at work does not hear.
        try {
          if (child.pid !== undefined) process.kill(child.pid, 'SIGKILL');
        } catch {
          // It has just ended.
        }
      },
      onMessage: (listener) => void child.on('message', listener),
      onOutput(listener) {
        outputListeners.push(listener);
        for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', listener);
      },
      onExit(listener) {
        child.once('exit', (exitCode) => {
          gone = true;
          app.off('child-process-gone', onGone);
          if (endedBySystem) listener(null, 'SIGKILL');
          else listener(exitCode, null);
        });
      },
    };
  };
}
