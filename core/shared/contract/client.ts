import {
  calls,
  events,
  type CallInput,
  type CallName,
  type CallResult,
  type EventName,
  type EventPayload,
} from './contract.ts';
import { CaravanError } from './errors.ts';
import { hostMessageSchema, type Carrier, type ClientMessage } from './wire.ts';

/** The client's end of the contract, the same over every carrier. Results and events are parsed before anyone sees them. */
export interface Client {
  call<N extends CallName>(name: N, params: CallInput<N>): Promise<CallResult<N>>;
  /** Returns the function that ends the subscription. */
  on<N extends EventName>(name: N, listener: (payload: EventPayload<N>) => void): () => void;
  onClose(listener: (reason: string) => void): void;
  close(): void;
}

export function createClient(carrier: Carrier): Client {
  const open = new Map<
    number,
    { name: CallName; resolve: (value: never) => void; reject: (error: Error) => void }
  >();
  const listeners = new Map<EventName, Set<(payload: never) => void>>();
  const closeListeners: ((reason: string) => void)[] = [];
  let nextId = 1;
  let closed: string | null = null;

  function send(message: ClientMessage): void {
    carrier.send(message);
  }

  function subscribe(): void {
    if (closed === null) send({ type: 'subscribe', events: [...listeners.keys()] });
  }

  carrier.onMessage((raw) => {
    const parsed = hostMessageSchema.safeParse(raw);
    if (!parsed.success) return;
    const message = parsed.data;
    if (message.type === 'event') {
      if (!(message.name in events)) return;
      const name = message.name as EventName;
      const payload = events[name].safeParse(message.payload);
      if (!payload.success) return;
      for (const listener of listeners.get(name) ?? []) listener(payload.data as never);
      return;
    }
    const call = open.get(message.id);
    if (!call) return;
    open.delete(message.id);
    if (message.type === 'error') {
      call.reject(CaravanError.fromData(message.error));
      return;
    }
    const result = calls[call.name].result.safeParse(message.result);
    if (result.success) call.resolve(result.data as never);
    else
      call.reject(
        new CaravanError('internal', `the host's answer to ${call.name} has another shape than agreed`),
      );
  });

  carrier.onClose((reason) => {
    closed = reason;
    for (const call of open.values())
      call.reject(new CaravanError('host_unreachable', `connection to the host lost: ${reason}`));
    open.clear();
    for (const listener of closeListeners) listener(reason);
  });

  return {
    call(name, params) {
      if (closed !== null)
        return Promise.reject(new CaravanError('host_unreachable', `connection to the host lost: ${closed}`));
      return new Promise((resolve, reject) => {
        const id = nextId++;
        // First sent: what the carrier refuses (too large a message) throws here and rejects the promise.
        send({ type: 'call', id, name, params });
        open.set(id, { name, resolve, reject });
      });
    },
    on(name, listener) {
      let set = listeners.get(name);
      if (!set) {
        set = new Set();
        listeners.set(name, set);
        subscribe();
      }
      set.add(listener as never);
      return () => {
        set.delete(listener as never);
        if (set.size === 0 && listeners.get(name) === set) {
          listeners.delete(name);
          subscribe();
        }
      };
    },
    onClose(listener) {
      closeListeners.push(listener);
    },
    close() {
      carrier.close();
    },
  };
}
