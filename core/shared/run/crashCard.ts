import type { CrashCard } from './run.ts';

/** Of an engine process whose GPU failed: after that every call to it fails, so the process has to go. */
export const deviceFailedExitCode = 70;

export interface EngineDeath {
  exitCode: number | null;
  signal: string | null;
  stderrTail: readonly string[];
}

/** Of the last lines, the first that tells what went wrong rather than what was going on. */
const tellingLine =
  /error|exception|fatal|abort|assert|terminate|fault|out of memory|bad_alloc|cannot|sanitizer|killed as hung/i;

/** What a person needs to know of an engine that ended by itself: what was seen, what is kept, what to do. */
export function makeCrashCard(
  { exitCode, signal, stderrTail }: EngineDeath,
  last: { step: number | null; checkpoint: string | null; memoryBytes: number | null },
): CrashCard {
  const line = stderrTail.find((text) => tellingLine.test(text)) ?? stderrTail.at(-1) ?? null;
  const kept =
    last.checkpoint === null
      ? 'No checkpoint was written yet, so resuming starts over with the same settings.'
      : 'Everything up to the last checkpoint is kept: resume the run.';
  return {
    exitCode,
    signal,
    line,
    stderrTail: [...stderrTail],
    lastStep: last.step,
    lastCheckpoint: last.checkpoint,
    memoryBytes: last.memoryBytes,
    advice: `${adviceOn(exitCode, signal, line ?? '')} ${kept}`,
  };
}

const hung = /killed as hung$/;

function adviceOn(exitCode: number | null, signal: string | null, line: string): string {
  if (/out of memory|bad_alloc|cannot allocate/i.test(line))
    return 'The engine ran out of memory: lower microBatchSize or seqLen, set recompute: true, or use optimizer: adamw8bit and trainDtype: bf16.';
  if (exitCode === deviceFailedExitCode)
    return 'The GPU failed, and nothing more can be computed in that process: resume the run. If it fails again, restart the machine or its driver, see what nvidia-smi says of errors and temperature, and try device: cpu.';
  if (hung.test(line)) return 'The engine hung, which is a bug in it: please report the lines below.';
  // 137 and 139 are how shells and containers report signals 9 and 11.
  if (signal === 'SIGKILL' || exitCode === 137)
    return 'The engine was killed from outside; if nobody did so, the system ran short of memory: close other programs, lower microBatchSize or seqLen, or set recompute: true.';
  if (signal === 'SIGTERM' || signal === 'SIGINT' || signal === 'SIGHUP')
    return 'The engine was asked to end from outside.';
  if (signal === 'SIGBUS')
    return 'A file that the engine reads was cut short or its disk went away: check the model and mix folders.';
  if (signal === 'SIGILL')
    return 'This processor lacks an instruction that the engine was built for: build it here again (npm run build:native).';
  if (signal !== null || exitCode === 139 || exitCode === 134)
    return 'The engine crashed, which is a bug in it: please report the lines below.';
  return `The engine ended with exit code ${exitCode ?? 'unknown'}.`;
}
