import { openHome } from './home.ts';
import { runHost, type RunHostOptions, type StartReport } from './runHost.ts';

const defaultIdleSeconds = 60;

function idleMs(): number | null {
  const given = process.env['CARAVAN_HOST_IDLE_S'];
  if (given === undefined || given === '') return defaultIdleSeconds * 1000;
  const seconds = Number(given);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds * 1000, 2 ** 31 - 1) : null;
}

function report(message: StartReport): void {
  if (!process.connected) {
    if (message.type === 'failed') process.stderr.write(`${message.error.message}\n`);
    return;
  }
  // The one who started it may be gone by now, which is no reason to end.
  process.send!(message, undefined, undefined, () => {
    if (message.type !== 'waiting' && process.connected) process.disconnect();
  });
}

/** Makes this process the home's host until it ends: what core/host/main.ts does. */
export async function hostProcess(
  openServices: RunHostOptions['openServices'],
  version?: string,
): Promise<void> {
  process.on('error', () => undefined);
  process.exitCode = await runHost({
    home: openHome(),
    idleMs: idleMs(),
    report,
    openServices,
    ...(version !== undefined && { version }),
  });
  // Sockets that clients keep open, timers of packages: nothing of it matters any more.
  setTimeout(() => process.exit(), 200).unref();
}
