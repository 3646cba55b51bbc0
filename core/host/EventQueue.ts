/**
 * Events on their way to one client. While the client keeps up they pass straight through. While it lags they wait here,
 * and what waits is made smaller without losing anything that cannot be had again:
 * - of a state (`jobChanged`, `runChanged`, `sourcesChanged` ...) only the newest matters: it replaces the older one;
 * - steps, tokens of an answer and log lines are joined to those that wait already: none is dropped;
 * - a client so far behind that even this grows over the limit is cut off. It reconnects and reads what it missed, which
 *   the store has (`readSteps`, `readRunLog`).
 * The order of the events about one thing never changes.
 */
import type { EventName, EventPayload } from '../shared/contract/contract.ts';

interface Waiting<N extends EventName = EventName> {
  name: N;
  subject: string;
  payload: EventPayload<N>;
  weight: number;
}

interface Behaviour<N extends EventName> {
  /** What the event is about: events of one subject keep their order. */
  subject: (payload: EventPayload<N>) => string;
  /** What a newer event does to the waiting one of its name and subject: takes its place, stays beside it, or joins it. */
  newer: 'replaces' | 'follows' | ((waiting: EventPayload<N>, newer: EventPayload<N>) => EventPayload<N>);
  /** How much it weighs while it waits, in pieces; 1 where absent. */
  weight?: (payload: EventPayload<N>) => number;
}

const whole = () => '';

const behaviours: { [N in EventName]: Behaviour<N> } = {
  jobChanged: { subject: (job) => `job ${job.id}`, newer: 'replaces' },
  jobLogged: { subject: ({ id }) => `job ${id}`, newer: 'follows' },
  queueChanged: { subject: whole, newer: 'replaces' },
  sourcesChanged: { subject: whole, newer: 'replaces' },
  mixesChanged: { subject: whole, newer: 'replaces' },
  lookProgressed: { subject: ({ lookId }) => `look ${lookId}`, newer: 'replaces' },
  modelsChanged: { subject: whole, newer: 'replaces' },
  runChanged: { subject: (run) => `run ${run.id}`, newer: 'replaces' },
  runRemoved: { subject: ({ id }) => `run ${id}`, newer: 'replaces' },
  runStepped: {
    subject: ({ id }) => `run ${id}`,
    newer: (waiting, newer) => ({ id: newer.id, steps: [...waiting.steps, ...newer.steps] }),
    weight: ({ steps }) => steps.length,
  },
  runEvaluated: { subject: ({ id }) => `run ${id}`, newer: 'follows' },
  runLogged: {
    subject: ({ id }) => `run ${id}`,
    newer: (waiting, newer) => ({ id: newer.id, lines: [...waiting.lines, ...newer.lines] }),
    weight: ({ lines }) => lines.length,
  },
  answerToken: {
    subject: ({ answerId }) => `answer ${answerId}`,
    // `tokens` counts from the answer's beginning.
    newer: (waiting, newer) => ({ ...newer, text: waiting.text + newer.text }),
  },
  threadsChanged: { subject: whole, newer: 'replaces' },
  exportsChanged: { subject: whole, newer: 'replaces' },
  hostClosing: { subject: whole, newer: 'replaces' },
};

export class EventQueue {
  readonly #deliver: (name: EventName, payload: unknown) => void;
  readonly #isFull: () => boolean;
  readonly #maxWeight: number;
  #waiting: Waiting[] = [];
  #weight = 0;

  /**
   * @param isFull whether the client lags so much that events should wait
   * @param maxWeight pieces (steps, lines, states) that may wait
   */
  constructor(
    deliver: (name: EventName, payload: unknown) => void,
    isFull: () => boolean,
    maxWeight = 20_000,
  ) {
    this.#deliver = deliver;
    this.#isFull = isFull;
    this.#maxWeight = maxWeight;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** @returns false where the client is too far behind to be kept */
  push<N extends EventName>(name: N, payload: EventPayload<N>): boolean {
    if (this.#waiting.length === 0 && !this.#isFull()) {
      this.#deliver(name, payload);
      return true;
    }
    const behaviour = behaviours[name];
    const subject = behaviour.subject(payload);
    const next: Waiting<N> = { name, subject, payload, weight: behaviour.weight?.(payload) ?? 1 };
    if (typeof behaviour.newer === 'function') {
      // Only to the last event of its subject: what came in between must stay in between.
      const last = this.#waiting.findLast((event) => event.subject === subject);
      if (last?.name === name) {
        last.payload = behaviour.newer(last.payload as EventPayload<N>, payload);
        last.weight += next.weight;
        this.#weight += next.weight;
        return this.#weight <= this.#maxWeight;
      }
    } else if (behaviour.newer === 'replaces') {
      const older = this.#waiting.findIndex((event) => event.name === name && event.subject === subject);
      if (older >= 0) {
        this.#weight -= this.#waiting[older]!.weight;
        this.#waiting.splice(older, 1);
      }
    }
    this.#waiting.push(next);
    this.#weight += next.weight;
    return this.#weight <= this.#maxWeight;
  }

  /** Sends what waits, as far as the client takes it. */
  flush(): void {
    while (this.#waiting.length > 0 && !this.#isFull()) {
      const event = this.#waiting.shift()!;
      this.#weight -= event.weight;
      this.#deliver(event.name, event.payload);
    }
  }
}
