import type { Run } from '../../../core/shared/run/run.ts';
import { isAllowed, type RunAction } from '../../../core/shared/run/transitions.ts';

/** What may be asked of a run now. `continue` lifts a pause; `resume` starts an ended run from its checkpoint. */
export function runActions(run: Run): Record<RunAction | 'chat', boolean> {
  const may = (action: RunAction) => isAllowed(run.state, action);
  return {
    pause: may('pause'),
    continue: may('continue'),
    stop: may('stop'),
    resume: may('resume'),
    remove: may('remove'),
    chat: run.lastCheckpoint !== null,
  };
}
