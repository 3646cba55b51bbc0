import type { Run, RunState } from '../../../core/shared/run/run.ts';

export interface RunActions {
  pause: boolean;
  continue: boolean;
  stop: boolean;
  resume: boolean;
  chat: boolean;
}

const none = { pause: false, continue: false, stop: false, resume: false };
/** What may be asked of a run in each state. `continue` lifts a pause; `resume` starts an ended run from its checkpoint. */
const byState = {
  queued: { ...none, stop: true },
  running: { ...none, pause: true, stop: true },
  paused: { ...none, continue: true, stop: true },
  stopping: none,
  completed: none,
  stopped: { ...none, resume: true },
  failed: { ...none, resume: true },
  interrupted: { ...none, resume: true },
} as const satisfies Record<RunState, Omit<RunActions, 'chat'>>;

export function runActions(run: Run): RunActions {
  return { ...byState[run.state], chat: run.lastCheckpoint !== null };
}
