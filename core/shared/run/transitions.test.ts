import { expect, test } from 'vitest';
import { runStates, type RunState } from './run.ts';
import { checkAction, isAllowed, isLive, runActions, type RunAction } from './transitions.ts';

const table: Record<RunState, RunAction[]> = {
  queued: ['stop'],
  running: ['pause', 'stop'],
  paused: ['continue', 'stop'],
  stopping: [],
  completed: ['remove'],
  stopped: ['resume', 'remove'],
  failed: ['resume', 'remove'],
  interrupted: ['resume', 'remove'],
};

test.each(runStates.flatMap((state) => runActions.map((action) => [state, action] as const)))(
  '%s: %s',
  (state, action) => {
    const may = table[state].includes(action);
    expect(isAllowed(state, action)).toBe(may);
    const attempt = () => checkAction({ name: 'x', state }, action);
    if (may) expect(attempt).not.toThrow();
    else
      expect(attempt).toThrow(
        expect.objectContaining({ code: 'wrong_state', mend: expect.any(String) as string }) as Error,
      );
  },
);

test('a run that can be stopped or is stopping is live, no other', () => {
  expect(runStates.filter(isLive)).toEqual(['queued', 'running', 'paused', 'stopping']);
});
