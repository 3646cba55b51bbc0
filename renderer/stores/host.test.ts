import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { contractVersion } from '../../core/shared/contract/contract.ts';
import type { Carrier, ClientMessage } from '../../core/shared/contract/wire.ts';
import { createHostLink, retryDelay } from './host.ts';

/** A host of which a test holds every end: connections are made and lost by hand. */
function scriptedWorkbench(version = contractVersion) {
  const ends: {
    sent: ClientMessage[];
    receive: (message: unknown) => void;
    lose: (reason: string) => void;
  }[] = [];
  let refuse = false;
  return {
    ends,
    refuseAll: (value: boolean) => (refuse = value),
    workbench: {
      kind: 'browser' as const,
      connect(): Promise<Carrier> {
        if (refuse) return Promise.reject(new Error('the host does not answer'));
        let receive: (message: unknown) => void = () => undefined;
        const onClose: ((reason: string) => void)[] = [];
        const sent: ClientMessage[] = [];
        ends.push({
          sent,
          receive: (message) => receive(message),
          lose: (reason) => onClose.forEach((listener) => listener(reason)),
        });
        return Promise.resolve({
          send(message) {
            const said = message as ClientMessage;
            sent.push(said);
            if (said.type !== 'call' || said.name !== 'hello') return;
            const result = { contractVersion: version, version: '1', home: '/h', pid: 1, startedAt: 1 };
            queueMicrotask(() => receive({ type: 'result', id: said.id, result }));
          },
          onMessage: (listener) => void (receive = listener),
          onClose: (listener) => void onClose.push(listener),
          close: () => undefined,
        });
      },
    },
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('the link to the host', () => {
  test('comes back after a loss, subscribes again and has the state read again', async () => {
    const { ends, workbench } = scriptedWorkbench();
    const link = createHostLink(workbench, () => 0.5);
    const lines: string[] = [];
    let refreshed = 0;
    link.on('jobLogged', ({ line }) => lines.push(line));
    link.onConnected(() => refreshed++);
    await vi.advanceTimersByTimeAsync(0);
    expect(link.state.value.kind).toBe('connected');

    ends[0]!.lose('gone');
    expect(link.state.value).toMatchObject({ kind: 'lost', reason: 'gone', attempt: 1 });
    await vi.advanceTimersByTimeAsync(retryDelay(1));
    expect(link.state.value.kind).toBe('connected');
    expect(refreshed).toBe(2);
    expect(ends[1]!.sent).toContainEqual({ type: 'subscribe', events: ['jobLogged'] });
    ends[1]!.receive({ type: 'event', name: 'jobLogged', payload: { id: 'j', line: 'after' } });
    ends[0]!.receive({
      type: 'event',
      name: 'jobLogged',
      payload: { id: 'j', line: 'of the dead connection' },
    });
    expect(lines).toEqual(['after']);
  });

  test('tries ever more seldom, and at once when told', async () => {
    const { refuseAll, workbench } = scriptedWorkbench();
    refuseAll(true);
    const link = createHostLink(workbench, () => 0.5);
    await vi.advanceTimersByTimeAsync(60_000);
    const state = link.state.value;
    expect(state.kind === 'lost' && state.attempt).toBeGreaterThan(5);
    expect(state.kind === 'lost' && state.attempt).toBeLessThan(14);
    refuseAll(false);
    link.retryNow();
    await vi.advanceTimersByTimeAsync(0);
    expect(link.state.value.kind).toBe('connected');
    expect([1, 2, 3, 20].map(retryDelay)).toEqual([400, 800, 1600, 10_000]);
  });

  test('calls without a connection fail with a mend instead of waiting', async () => {
    const { refuseAll, workbench } = scriptedWorkbench();
    refuseAll(true);
    const link = createHostLink(workbench);
    await expect(link.call('listRuns', {})).rejects.toMatchObject({ code: 'host_unreachable' });
    link.close();
  });

  test('a host of another contract is not spoken to again', async () => {
    const { ends, workbench } = scriptedWorkbench(contractVersion + 1);
    const link = createHostLink(workbench);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(link.state.value).toEqual({ kind: 'mismatched', version: '1' });
    expect(ends).toHaveLength(1);
  });
});
