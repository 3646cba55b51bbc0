import { CaravanError } from '../contract/errors.ts';
import type { RunState } from './run.ts';

/** What people do to a run. */
export const runActions = ['pause', 'continue', 'stop', 'resume', 'remove'] as const;
export type RunAction = (typeof runActions)[number];

const allowed: Record<RunAction, readonly RunState[]> = {
  pause: ['running'],
  continue: ['paused'],
  stop: ['queued', 'running', 'paused'],
  resume: ['stopped', 'failed', 'interrupted'],
  remove: ['completed', 'stopped', 'failed', 'interrupted'],
};

const pastTense: Record<RunAction, string> = {
  pause: 'paused',
  continue: 'continued',
  stop: 'stopped',
  resume: 'resumed',
  remove: 'removed',
};

const mends: Record<RunState, string> = {
  queued: 'Stop it, or wait until it starts.',
  running: 'Stop it first.',
  paused: 'Continue or stop it first.',
  stopping: 'It ends by itself once its checkpoint is written.',
  completed: 'Start a new run with more epochs to train on.',
  stopped: 'Resume it.',
  failed: 'Read its error, then resume it.',
  interrupted: 'Resume it.',
};

export function isAllowed(state: RunState, action: RunAction): boolean {
  return allowed[action].includes(state);
}

/** @throws `wrong_state`, with what can be done instead */
export function checkAction(run: { name: string; state: RunState }, action: RunAction): void {
  if (!isAllowed(run.state, action))
    throw new CaravanError(
      'wrong_state',
      `run '${run.name}' is ${run.state}: it cannot be ${pastTense[action]}`,
      {
        mend: mends[run.state],
      },
    );
}

/** Whether a run waits for an engine or has one. */
export function isLive(state: RunState): boolean {
  return state === 'queued' || state === 'running' || state === 'paused' || state === 'stopping';
}
