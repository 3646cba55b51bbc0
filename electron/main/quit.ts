import type { WorkSummary } from './watchWork.ts';

export type QuitChoice = 'tray' | 'stop' | 'cancel';

/** In the order of the dialog's buttons: the one that loses nothing is the default, Escape cancels. */
const choices: readonly QuitChoice[] = ['tray', 'stop', 'cancel'];

/** The question that is asked where work runs; null where none need be. */
export function quitQuestion(summary: WorkSummary, isOwnHost: boolean) {
  // Another process hosts the work: it goes on without this window.
  if (!isOwnHost || summary.jobs.length === 0) return null;
  return {
    type: 'question' as const,
    message:
      summary.jobs.length === 1 ? 'Work is running' : `${summary.jobs.length} jobs are running or waiting`,
    detail: `${summary.line}.\n\nStopping saves a checkpoint first: a run goes on from it when you resume it. Imports and mixes start anew.`,
    buttons: ['Keep running in the tray', 'Stop with a checkpoint and quit', 'Cancel'],
    defaultId: 0,
    cancelId: 2,
    noLink: true,
  };
}

export function quitChoice(button: number): QuitChoice {
  return choices[button] ?? 'cancel';
}
