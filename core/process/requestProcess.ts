/** The host's end of a process that answers requests: it is started at the first and again after it died. */
import type * as z from 'zod';
import { CaravanError } from '../shared/contract/errors.ts';
import type { answerMessageSchemas, requestMessageSchema } from './requestMessages.ts';
import { superviseProcess, type SpawnProcess, type SupervisedProcess } from './supervise.ts';

type AnswerMessage = z.infer<(typeof answerMessageSchemas)[number]>;
type Answer = Extract<AnswerMessage, { id: number }>;

/** By name: what is asked with, and what is answered. */
export type RequestShapes = Readonly<Record<string, { params: z.ZodType; result: z.ZodType }>>;

export interface RequestProcessOptions<R extends RequestShapes, M> {
  entry: string;
  /** What the system's lists of processes may call it. */
  name: string;
  /** What messages to people call it: "the engine". */
  called: string;
  /** What to do when it died under a request. */
  mend: string;
  requests: R;
  /** Everything that it may say. */
  messages: z.ZodType<M>;
  spawn: SpawnProcess;
  /** Without a sign of life for so long it is taken for hung, and killed. */
  silenceMs: number;
  /** Once cancelled, a request may take so long to notice; then its process is ended. Without it none can be cancelled. */
  cancelGraceMs?: number;
}

export interface RequestProcess<R extends RequestShapes, M> {
  readonly pid: number | null;
  request<N extends keyof R & string>(
    name: N,
    params: z.infer<R[N]['params']>,
    options?: { onNews?: (news: News<M>) => void; signal?: AbortSignal | undefined },
  ): Promise<z.infer<R[N]['result']>>;
  /** To the process, where there is one. */
  send(message: unknown): void;
  close(): Promise<void>;
}

/** Of all messages, those that tell of a request under way. */
export type News<M> = Exclude<Extract<M, { id: number }>, AnswerMessage>;

interface Pending<M> {
  name: string;
  params: unknown;
  signal: AbortSignal | undefined;
  onNews: ((news: News<M>) => void) | undefined;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

function isAnswer(message: { type: string }): message is Answer {
  return message.type === 'result' || message.type === 'error';
}

/** Starts no process yet. */
export function createRequestProcess<R extends RequestShapes, M extends { type: string }>(
  options: RequestProcessOptions<R, M>,
): RequestProcess<R, M> {
  const { called, requests, messages, cancelGraceMs } = options;
  let child: SupervisedProcess | null = null;
  let nextId = 1;
  const pending = new Map<number, Pending<M>>();

  function start(): SupervisedProcess {
    const { entry, name, spawn, silenceMs } = options;
    const started = superviseProcess({ entry, name, onMessage, spawn, silenceMs });
    void started.ended.then(({ exitCode, signal, stderrTail }) => {
      if (child !== started) return;
      child = null;
      const why = signal ?? `exit code ${exitCode ?? 'unknown'}`;
      const line = stderrTail.at(-1);
      failAll(`${called} ended by itself (${why})${line === undefined ? '' : `: ${line}`}`);
    });
    return started;
  }

  function failAll(message: string): void {
    for (const { reject } of pending.values())
      reject(new CaravanError('engine_died', message, { mend: options.mend }));
    pending.clear();
  }

  function ask(id: number, { name, params }: Pending<M>): void {
    child ??= start();
    child.send({ type: 'request', id, name, params } satisfies z.infer<typeof requestMessageSchema>);
  }

  function onMessage(raw: unknown): void {
    const parsed = messages.safeParse(raw);
    if (!parsed.success || !('id' in parsed.data)) return;
    const message = parsed.data as News<M> | Answer;
    const request = pending.get(message.id);
    if (!request) return;
    if (!isAnswer(message)) {
      request.onNews?.(message);
      return;
    }
    pending.delete(message.id);
    if (message.type === 'error') request.reject(CaravanError.fromData(message.error));
    else settle(request, message.result);
  }

  function settle({ name, resolve, reject }: Pending<M>, answer: unknown): void {
    const result = requests[name]!.result.safeParse(answer);
    if (result.success) resolve(result.data);
    else reject(new CaravanError('internal', `${called} answered ${name} in another shape than agreed`));
  }

  function cancel(id: number, graceMs: number): void {
    if (!pending.has(id)) return;
    child?.send({ type: 'cancel', id });
    setTimeout(() => void force(id, graceMs), graceMs).unref();
  }

  /** Ends the process under a request that does not react, and asks again for what else it was at. */
  async function force(id: number, graceMs: number): Promise<void> {
    const stuck = child;
    if (!stuck || !pending.has(id)) return;
    const asked = [...pending];
    child = null;
    stuck.kill();
    await stuck.ended;
    for (const [other, request] of asked) {
      if (!pending.has(other)) continue;
      if (request.signal?.aborted) {
        pending.delete(other);
        request.reject(
          new CaravanError(
            'cancelled',
            `${request.name} did not stop within ${graceMs / 1000} s: its process was ended and is started again; nothing half-written is kept`,
          ),
        );
      } else ask(other, request);
    }
  }

  return {
    get pid() {
      return child?.pid ?? null;
    },
    request(name, params, { onNews, signal } = {}) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(new CaravanError('cancelled', `${name} was cancelled`));
          return;
        }
        const id = nextId++;
        const request: Pending<M> = {
          name,
          params,
          signal,
          onNews,
          resolve: resolve as (result: unknown) => void,
          reject,
        };
        pending.set(id, request);
        if (cancelGraceMs !== undefined)
          signal?.addEventListener('abort', () => cancel(id, cancelGraceMs), { once: true });
        ask(id, request);
      });
    },
    send: (message) => child?.send(message),
    async close() {
      const closing = child;
      child = null;
      failAll(`${called} was closed`);
      await closing?.close();
    },
  };
}
