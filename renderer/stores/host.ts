/**
 * The window's one line to its host. It reconnects by itself; subscriptions outlive a connection, and whoever holds a
 * copy of the host's state reads it again in `onConnected`.
 */
import { shallowRef, type ShallowRef } from 'vue';
import { createClient, type Client } from '../../core/shared/contract/client.ts';
import {
  contractVersion,
  type CallInput,
  type CallName,
  type CallResult,
  type EventName,
  type EventPayload,
} from '../../core/shared/contract/contract.ts';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import type { Workbench } from '../../core/shared/contract/workbench.ts';

export type HostState =
  | { kind: 'connecting' }
  | { kind: 'connected'; hello: CallResult<'hello'> }
  | { kind: 'lost'; reason: string; attempt: number; retryAt: number }
  /** Page and host are of different versions; only a reload helps. */
  | { kind: 'mismatched'; version: string };

export interface HostLink {
  readonly state: ShallowRef<HostState>;
  call<N extends CallName>(name: N, params: CallInput<N>): Promise<CallResult<N>>;
  on<N extends EventName>(name: N, listener: (payload: EventPayload<N>) => void): () => void;
  /** Called after every connection, and at once where there is one. */
  onConnected(listener: () => void): () => void;
  retryNow(): void;
  close(): void;
}

/** Milliseconds to wait before attempt `n` (from 1), without the jitter. */
export function retryDelay(attempt: number): number {
  return Math.min(10_000, 400 * 2 ** (attempt - 1));
}

export function createHostLink(workbench: Workbench, random: () => number = Math.random): HostLink {
  const state = shallowRef<HostState>({ kind: 'connecting' });
  const listeners = new Map<EventName, Set<(payload: never) => void>>();
  const connectedListeners = new Set<() => void>();
  let client: Client | undefined;
  let attempt = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;
  let connecting = false;

  async function connect(): Promise<void> {
    if (connecting || closed) return;
    connecting = true;
    clearTimeout(timer);
    try {
      const next = createClient(await workbench.connect());
      const lost = new Promise<never>((_, reject) => {
        next.onClose((reason) => {
          reject(new Error(reason));
          if (client === next) lose(reason);
        });
      });
      lost.catch(() => undefined);
      const hello = await Promise.race([next.call('hello', {}), lost]);
      if (hello.contractVersion !== contractVersion) {
        state.value = { kind: 'mismatched', version: hello.version };
        closed = true;
        next.close();
        return;
      }
      client = next;
      for (const name of listeners.keys()) forward(next, name);
      attempt = 0;
      state.value = { kind: 'connected', hello };
      for (const listener of [...connectedListeners]) listener();
    } catch (error) {
      lose((error as Error).message);
    } finally {
      connecting = false;
    }
  }

  function lose(reason: string): void {
    client = undefined;
    if (closed) return;
    attempt++;
    const delay = retryDelay(attempt) * (0.8 + 0.4 * random());
    state.value = { kind: 'lost', reason, attempt, retryAt: Date.now() + delay };
    clearTimeout(timer);
    timer = setTimeout(() => void connect(), delay);
  }

  function forward(to: Client, name: EventName): void {
    to.on(name, (payload) => {
      if (to !== client) return;
      for (const listener of [...(listeners.get(name) ?? [])]) listener(payload as never);
    });
  }

  void connect();
  return {
    state,
    call(name, params) {
      if (client) return client.call(name, params);
      return Promise.reject(
        new CaravanError('host_unreachable', 'there is no connection to the host', {
          mend: 'Wait until the window has reconnected, then try again.',
        }),
      );
    },
    on(name, listener) {
      let set = listeners.get(name);
      if (!set) {
        set = new Set();
        listeners.set(name, set);
        if (client) forward(client, name);
      }
      set.add(listener as never);
      return () => set.delete(listener as never);
    },
    onConnected(listener) {
      connectedListeners.add(listener);
      if (state.value.kind === 'connected') listener();
      return () => connectedListeners.delete(listener);
    },
    retryNow() {
      if (state.value.kind === 'lost') void connect();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      client?.close();
    },
  };
}

let current: HostLink | undefined;

export function provideHost(link: HostLink): void {
  current = link;
}

/** The link that main.ts (or a test) provided. */
export function useHost(): HostLink {
  if (!current)
    throw new Error('no host was provided: main.ts calls provideHost before it mounts the window');
  return current;
}
