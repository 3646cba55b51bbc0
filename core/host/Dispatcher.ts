/**
 * Where messages meet meaning: takes calls from any number of carriers, parses their parameters once, has them done and
 * answers; sends events to those who subscribed. It never waits for a client.
 */
import {
  calls,
  events,
  type CallName,
  type EventName,
  type EventPayload,
} from '../shared/contract/contract.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Handlers } from '../shared/contract/service.ts';
import { clientMessageSchema, type ClientMessage, type HostMessage } from '../shared/contract/wire.ts';
import type { BufferedCarrier } from './carriers/BufferedCarrier.ts';
import { EventQueue } from './EventQueue.ts';

/** Who calls, for the few handlers that care. */
export interface Caller {
  /** Called when the caller's connection has ended, at once where it has already. */
  onGone(listener: () => void): void;
}

export interface DispatcherOptions {
  /** Called with the caller as a second argument, which services have no use for. */
  handlers: Handlers;
  /** Told of failures that are bugs, with what was called. */
  onBug?: (what: string, error: unknown) => void;
  onClientsChanged?: (count: number) => void;
}

export interface Dispatcher {
  /** Serves a client until its carrier closes. */
  attach(carrier: BufferedCarrier): void;
  emit<N extends EventName>(name: N, payload: EventPayload<N>): void;
  readonly clientCount: number;
  closeAll(reason: string): void;
}

/** Above this much unsent, events wait for the client. */
const fullBytes = 256 * 1024;
/** Calls of one client that are being worked on, and calls that wait for their turn. */
const maxOpenCalls = 256;
const maxQueuedCalls = 1024;
/** Work done for one client before others, timers and sockets get their turn. */
const turnMs = 8;

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const clients = new Set<DispatcherClient>();
  return {
    attach(carrier) {
      const client = new DispatcherClient(carrier, options);
      clients.add(client);
      options.onClientsChanged?.(clients.size);
      carrier.onClose(() => {
        client.end();
        if (clients.delete(client)) options.onClientsChanged?.(clients.size);
      });
    },
    emit(name, payload) {
      for (const client of clients) client.tell(name, payload);
    },
    get clientCount() {
      return clients.size;
    },
    closeAll(reason) {
      for (const client of clients) client.close(reason);
    },
  };
}

class DispatcherClient implements Caller {
  readonly #carrier: BufferedCarrier;
  readonly #options: DispatcherOptions;
  readonly #events: EventQueue;
  readonly #openIds = new Set<number>();
  /** Answers that this client alone waits for. */
  readonly #answers = new Set<string>();
  #subscribed = new Set<string>();
  #queue: ClientMessage[] = [];
  #pumping = false;
  #ended = false;
  readonly #goneListeners: (() => void)[] = [];

  constructor(carrier: BufferedCarrier, options: DispatcherOptions) {
    this.#carrier = carrier;
    this.#options = options;
    this.#events = new EventQueue(
      (name, payload) => this.#send({ type: 'event', name, payload }),
      () => carrier.bufferedBytes > fullBytes,
    );
    carrier.onDrain(() => this.#events.flush());
    carrier.onMessage((raw) => this.#receive(raw));
  }

  tell<N extends EventName>(name: N, payload: EventPayload<N>): void {
    if (this.#ended || !this.#subscribed.has(name)) return;
    if (!this.#events.push(name, payload)) this.close('too slow: too many events wait to be read');
  }

  onGone(listener: () => void): void {
    if (this.#ended) listener();
    else this.#goneListeners.push(listener);
  }

  close(reason: string): void {
    this.end();
    this.#carrier.close(reason);
  }

  /** Nobody hears the rest: an answer that is kept nowhere need not be written to its end. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#queue = [];
    for (const listener of this.#goneListeners) listener();
    for (const answerId of this.#answers)
      void Promise.resolve()
        .then(() => this.#options.handlers.cancelAnswer({ answerId }))
        .catch(() => undefined);
  }

  #receive(raw: unknown): void {
    if (this.#ended) return;
    const parsed = clientMessageSchema.safeParse(raw);
    if (!parsed.success) {
      this.close('a message has another shape than agreed');
      return;
    }
    if (this.#queue.length >= maxQueuedCalls) {
      this.close('too many calls at once');
      return;
    }
    this.#queue.push(parsed.data);
    if (!this.#pumping) this.#pump();
  }

  /** Works through what came, a turn at a time, and no further while too many calls are open. */
  #pump(): void {
    this.#pumping = true;
    const begun = performance.now();
    while (this.#queue.length > 0 && this.#openIds.size < maxOpenCalls) {
      if (performance.now() - begun > turnMs) {
        setImmediate(() => this.#pump());
        return;
      }
      this.#handle(this.#queue.shift()!);
    }
    this.#pumping = false;
  }

  #handle(message: ClientMessage): void {
    if (message.type === 'subscribe') {
      this.#subscribed = new Set(message.events.filter((name) => Object.hasOwn(events, name)));
      return;
    }
    const { id, name } = message;
    if (this.#openIds.has(id)) {
      this.#fail(id, new CaravanError('bad_option', `call id ${id} is in use`));
      return;
    }
    if (!Object.hasOwn(calls, name)) {
      this.#fail(
        id,
        new CaravanError('bad_option', `this host knows no call '${name}'`, {
          mend: 'Client and host may be of different versions.',
        }),
      );
      return;
    }
    this.#call(id, name as CallName, message.params);
  }

  #call(id: number, name: CallName, raw: unknown): void {
    const params = calls[name].params.safeParse(raw ?? {});
    if (!params.success) {
      const issue = params.error.issues[0]!;
      const path = issue.code === 'unrecognized_keys' ? [...issue.path, ...issue.keys] : issue.path;
      const place = path.length > 0 ? { place: { field: path.join('.') } } : {};
      this.#fail(id, new CaravanError('bad_option', `${name}: ${issue.message}`, place));
      return;
    }
    this.#openIds.add(id);
    const answerId =
      name === 'generateAnswer' || name === 'completeText' ? answerToCancel(params.data) : null;
    if (answerId !== null) this.#answers.add(answerId);
    const settle = (message: HostMessage) => {
      this.#openIds.delete(id);
      if (answerId !== null) this.#answers.delete(answerId);
      this.#send(message);
      if (!this.#pumping && this.#queue.length > 0) this.#pump();
    };
    const handler = this.#options.handlers[name] as (params: unknown, caller: Caller) => unknown;
    const failed = (error: unknown) => settle(this.#errorMessage(id, name, error));
    let result: unknown;
    try {
      result = handler(params.data, this);
    } catch (error) {
      failed(error);
      return;
    }
    if (result instanceof Promise)
      result.then((value: unknown) => settle({ type: 'result', id, result: value }), failed);
    else settle({ type: 'result', id, result });
  }

  #fail(id: number, error: CaravanError): void {
    this.#send({ type: 'error', id, error: error.toData() });
  }

  #errorMessage(id: number, name: string, error: unknown): HostMessage {
    const known = CaravanError.from(error);
    if (known.code === 'internal') this.#options.onBug?.(name, error);
    return { type: 'error', id, error: known.toData() };
  }

  #send(message: HostMessage): void {
    if (this.#ended) return;
    try {
      this.#carrier.send(message);
    } catch (error) {
      if (message.type === 'result') {
        this.#carrier.send(this.#errorMessage(message.id, 'answer', error));
        return;
      }
      this.#options.onBug?.(message.type, error);
    }
  }
}

function answerToCancel(params: unknown): string | null {
  const { answerId, threadId = null } = params as { answerId: string; threadId?: string | null };
  return threadId === null ? answerId : null;
}
