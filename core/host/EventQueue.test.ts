import { describe, expect, test } from 'vitest';
import type { EventName, EventPayload } from '../shared/contract/contract.ts';
import { EventQueue } from './EventQueue.ts';

function setUp(maxWeight?: number) {
  const sent: [EventName, unknown][] = [];
  const state = { full: true };
  const queue = new EventQueue(
    (name, payload) => sent.push([name, payload]),
    () => state.full,
    maxWeight,
  );
  return { queue, sent, state };
}

const step = (number: number) => ({ step: number }) as EventPayload<'runStepped'>['steps'][number];
const stepped = (id: string, ...steps: number[]) => ({ id, steps: steps.map(step) });
const run = (id: string, state: string) => ({ id, state }) as EventPayload<'runChanged'>;
const job = (id: string, done: number) =>
  ({ id, progress: { done } }) as unknown as EventPayload<'jobChanged'>;

test('passes straight through while the client keeps up', () => {
  const { queue, sent, state } = setUp();
  state.full = false;
  queue.push('runStepped', stepped('r', 1));
  queue.push('runStepped', stepped('r', 2));
  expect(sent).toHaveLength(2);
});

describe('while the client lags', () => {
  test('only the newest state of each thing waits', () => {
    const { queue, sent, state } = setUp();
    for (let done = 0; done < 1000; done++) queue.push('jobChanged', job('a', done));
    queue.push('jobChanged', job('b', 1));
    queue.push('sourcesChanged', {});
    queue.push('sourcesChanged', {});
    expect(queue.waiting).toBe(3);
    state.full = false;
    queue.flush();
    expect(sent).toEqual([
      ['jobChanged', job('a', 999)],
      ['jobChanged', job('b', 1)],
      ['sourcesChanged', {}],
    ]);
  });

  test('no step, token, line or evaluation is lost', () => {
    const { queue, sent, state } = setUp();
    for (let number = 1; number <= 100; number++) queue.push('runStepped', stepped('r', number));
    for (const text of ['a', 'b', 'c'])
      queue.push('answerToken', { answerId: 'x', text, tokens: text.charCodeAt(0) - 96 });
    queue.push('runLogged', { id: 'r', lines: ['1'] });
    queue.push('runLogged', { id: 'r', lines: ['2', '3'] });
    queue.push('jobLogged', { id: 'j', line: 'one' });
    queue.push('jobLogged', { id: 'j', line: 'two' });
    const evaluation = (number: number) => ({ id: 'r', evaluation: { step: number, loss: 1, bySource: [] } });
    queue.push('runEvaluated', evaluation(1));
    queue.push('runEvaluated', evaluation(2));
    state.full = false;
    queue.flush();
    expect(sent).toEqual([
      ['runStepped', stepped('r', ...Array.from({ length: 100 }, (_, index) => index + 1))],
      ['answerToken', { answerId: 'x', text: 'abc', tokens: 3 }],
      ['runLogged', { id: 'r', lines: ['1', '2', '3'] }],
      ['jobLogged', { id: 'j', line: 'one' }],
      ['jobLogged', { id: 'j', line: 'two' }],
      ['runEvaluated', evaluation(1)],
      ['runEvaluated', evaluation(2)],
    ]);
  });

  test('what concerns one run stays in order: a resumed run’s steps are not joined to those before', () => {
    const { queue, sent, state } = setUp();
    queue.push('runStepped', stepped('r', 5));
    queue.push('runStepped', stepped('other', 1));
    queue.push('runChanged', run('r', 'interrupted'));
    queue.push('runChanged', run('r', 'running'));
    queue.push('runStepped', stepped('r', 4));
    queue.push('runStepped', stepped('other', 2));
    queue.push('runChanged', run('r', 'completed'));
    state.full = false;
    queue.flush();
    expect(sent.filter(([, payload]) => (payload as { id: string }).id === 'r')).toEqual([
      ['runStepped', stepped('r', 5)],
      ['runStepped', stepped('r', 4)],
      ['runChanged', run('r', 'completed')],
    ]);
    expect(sent).toContainEqual(['runStepped', stepped('other', 1, 2)]);
  });

  test('a payload that other clients share is not changed by joining', () => {
    const { queue } = setUp();
    const shared = stepped('r', 1);
    queue.push('runStepped', shared);
    queue.push('runStepped', stepped('r', 2));
    expect(shared).toEqual(stepped('r', 1));
  });

  test('who falls too far behind is given up', () => {
    const { queue } = setUp(10);
    for (let number = 1; number <= 10; number++)
      expect(queue.push('runStepped', stepped('r', number))).toBe(true);
    expect(queue.push('runStepped', stepped('r', 11))).toBe(false);
  });

  test('flushing stops when the client is full again, and what is new waits behind what is old', () => {
    const { queue, sent, state } = setUp();
    queue.push('jobLogged', { id: 'j', line: '1' });
    queue.push('jobLogged', { id: 'j', line: '2' });
    queue.flush();
    expect(sent).toEqual([]);
    state.full = false;
    queue.push('jobLogged', { id: 'j', line: '3' });
    expect(sent).toEqual([]);
    queue.flush();
    expect(sent.map(([, payload]) => (payload as { line: string }).line)).toEqual(['1', '2', '3']);
  });
});
