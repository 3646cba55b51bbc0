/**
 * A host that follows a script: it serves the built page and speaks the contract over a WebSocket, with runs, a library
 * and chats that exist nowhere else. For tests of the window alone; what the real host does is tested with the real host.
 */
import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer, type WebSocket } from 'ws';
import {
  calls,
  contractVersion,
  type CallName,
  type CallParams,
  type EventName,
  type EventPayload,
} from '../../core/shared/contract/contract.ts';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import type { Handlers } from '../../core/shared/contract/service.ts';
import { clientMessageSchema } from '../../core/shared/contract/wire.ts';
import { metricOfStep } from '../../core/shared/run/metrics.ts';
import { scriptedWorld, type ScriptedRun } from './scriptedWorld.ts';

const page = fileURLToPath(new URL('../../out/renderer/', import.meta.url));
/** What `caravan serve` sends; the page must live with it. */
export const pagePolicy =
  "default-src 'none'; script-src 'self'; style-src-elem 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; " +
  "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";
const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.map': 'application/json',
};

export interface FakeHost {
  readonly url: string;
  readonly port: number;
  readonly runs: ScriptedRun[];
  /** Every call that arrived, in order. */
  readonly called: { name: string; params: unknown }[];
  emit<N extends EventName>(name: N, payload: EventPayload<N>): void;
  /** Trains the running run one step further. */
  step(): void;
  /** Drops every connection and refuses new ones until `comeBack`. */
  goAway(): void;
  comeBack(): void;
  close(): Promise<void>;
}

export interface FakeHostOptions {
  /** Nothing in the library, no runs. */
  empty?: boolean;
  /** Milliseconds between steps of the running run; absent: only `step()`. */
  stepEveryMs?: number;
  /** Milliseconds between tokens of an answer. */
  tokenEveryMs?: number;
  port?: number;
}

export async function startFakeHost(options: FakeHostOptions = {}): Promise<FakeHost> {
  const world = scriptedWorld(options.empty ?? false);
  const clients = new Map<WebSocket, Set<string>>();
  const called: FakeHost['called'] = [];
  const cancelled = new Set<string>();
  let away = false;
  let nextThread = 10;

  function emit<N extends EventName>(name: N, payload: EventPayload<N>): void {
    const message = JSON.stringify({ type: 'event', name, payload });
    for (const [socket, names] of clients) if (names.has(name)) socket.send(message);
  }
  const runOf = (id: string): ScriptedRun => {
    const found = world.runs.find(({ run }) => run.id === id);
    if (!found) throw new CaravanError('not_found', `there is no run ${id}`);
    return found;
  };
  function change(id: string, patch: Partial<ScriptedRun['run']>): ScriptedRun['run'] {
    const entry = runOf(id);
    entry.run = { ...entry.run, ...patch };
    emit('runChanged', entry.run);
    const job = world.jobs.find(({ subjectId }) => subjectId === id);
    if (job) {
      const { state } = entry.run;
      job.state = state === 'stopped' ? 'cancelled' : state;
      job.progress = {
        done: entry.run.step,
        total: entry.run.totalSteps,
        unit: 'steps',
        rate: 2.1,
        etaMs: entry.run.etaMs,
      };
      emit('jobChanged', job);
    }
    return entry.run;
  }
  function step(): void {
    const entry = world.runs.find(({ run }) => run.state === 'running');
    if (!entry) return;
    const next = entry.stepAt(entry.run.step + 1);
    entry.steps.push(next);
    const total = entry.run.totalSteps!;
    change(entry.run.id, {
      step: next.step,
      loss: next.loss,
      tokensPerSecond: next.tokensPerSecond,
      elapsedMs: entry.run.elapsedMs + next.stepMs,
      etaMs: (total - next.step) * next.stepMs,
      phase: 'training',
    });
    emit('runStepped', { id: entry.run.id, steps: [next] });
    if (next.step >= total)
      change(entry.run.id, { state: 'completed', phase: 'finished', endedAt: Date.now() });
  }

  const handlers: Partial<Handlers> = {
    hello: () => ({
      contractVersion,
      version: '0.1.0',
      home: '/home/ada/.local/share/caravan',
      pid: process.pid,
      startedAt: world.startedAt,
    }),
    systemStatus: () => world.system,
    listJobs: () => world.jobs,
    readStorage: () => ({
      home: '/home/ada/.local/share/caravan',
      shares: [
        { kind: 'runs', bytes: 4.2e9, freeableBytes: null },
        { kind: 'looking', bytes: 3.1e8, freeableBytes: 2.9e8 },
        { kind: 'trash', bytes: 0, freeableBytes: 0 },
      ],
      disk: { totalBytes: 5e11, freeBytes: 1.2e11 },
    }),
    hubStatus: () => ({ endpoint: 'https://huggingface.co', token: null }),
    doctor: () => ({
      checks: [{ name: 'Node', status: 'ok', found: '24.21.0', mend: null }],
      devices: world.system.devices,
      cuda: null,
      versions: { caravan: '0.1.0' },
    }),
    getQueue: () => ({ startsAt: null }),
    getJobLog: ({ id }) => ({ lines: [`job ${id}`, 'reading slimorca.jsonl', '1,024 rows, 3 set aside'] }),
    cancelJob: ({ id }) => {
      const job = world.jobs.find((other) => other.id === id)!;
      Object.assign(job, { state: 'cancelled', endedAt: Date.now() });
      emit('jobChanged', job);
      return job;
    },
    listSources: () => world.sources,
    listMixes: () => world.mixes,
    listModels: () => world.models,
    listRuns: ({ after, limit }) => {
      const all = world.runs.map(({ run }) => run);
      return all.slice(after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1).slice(0, limit);
    },
    getRun: ({ id }) => runOf(id).run,
    updateRun: ({ id, ...patch }) =>
      change(id, Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined))),
    trashRun: ({ id }) => change(id, { trashedAt: Date.now() }),
    restoreRun: ({ id }) => change(id, { trashedAt: null }),
    pauseRun: ({ id }) => change(id, { state: 'paused', phase: 'paused' }),
    continueRun: ({ id }) => change(id, { state: 'running', phase: 'training' }),
    stopRun: ({ id }) =>
      change(id, { state: 'stopped', phase: 'finished', endedAt: Date.now(), etaMs: null }),
    resumeRun: ({ id }) => {
      const { run } = runOf(id);
      return change(id, {
        state: 'running',
        phase: 'training',
        crash: null,
        error: null,
        endedAt: null,
        attempt: run.attempt + 1,
      });
    },
    planRun: () => world.plan,
    readSteps: ({ id, fromStep, limit }) =>
      runOf(id)
        .steps.filter(({ step: number }) => number >= fromStep)
        .slice(0, limit),
    readSeries: ({ id, metrics, fromStep = 0, toStep = Infinity, buckets }) => {
      const steps = runOf(id).steps.filter(({ step: number }) => number >= fromStep && number <= toStep);
      const size = Math.max(1, Math.ceil(steps.length / buckets));
      return metrics.map((metric) => {
        const series = {
          metric,
          steps: [] as number[],
          values: [] as (number | null)[],
          min: [] as (number | null)[],
          max: [] as (number | null)[],
          nonFinite: [] as number[],
        };
        for (let at = 0; at < steps.length; at += size) {
          const bucket = steps.slice(at, at + size);
          const values = bucket.map((one) => metricOfStep(one, metric) ?? null);
          const finite = values.filter((value) => value !== null);
          series.nonFinite.push(values.length - finite.length);
          series.steps.push(bucket.at(-1)!.step);
          series.values.push(values.at(-1)!);
          series.min.push(finite.length > 0 ? Math.min(...finite) : null);
          series.max.push(finite.length > 0 ? Math.max(...finite) : null);
        }
        return series;
      });
    },
    readEvaluations: ({ id }) => runOf(id).evaluations,
    readRunLog: ({ id, tail }) => ({ lines: runOf(id).log.slice(-tail) }),
    readStepRows: ({ id, step: number }) => runOf(id).rowsAt(number),
    listThreads: () => world.threads.map(({ thread }) => thread),
    readThread: ({ id }) => {
      const found = world.threads.find(({ thread }) => thread.id === id);
      if (!found) throw new CaravanError('not_found', `there is no chat ${id}`);
      return found;
    },
    createThread: ({ title, model, parent }) => {
      const thread = {
        id: `t${nextThread++}`,
        title,
        model,
        parent,
        createdAt: Date.now(),
        updatedAt: Date.now(),
      };
      world.threads.push({ thread, messages: [] });
      emit('threadsChanged', {});
      return thread;
    },
    updateThread: ({ id, parent }) => {
      const found = world.threads.find(({ thread }) => thread.id === id)!;
      if (parent === null) found.thread = { ...found.thread, parent };
      emit('threadsChanged', {});
      return found.thread;
    },
    removeThread: ({ id }) => {
      world.threads.splice(
        world.threads.findIndex(({ thread }) => thread.id === id),
        1,
      );
      emit('threadsChanged', {});
      return {};
    },
    cancelAnswer: ({ answerId }) => {
      cancelled.add(answerId);
      return {};
    },
    generateAnswer: async (params) => answer(params),
  };

  async function answer(params: CallParams<'generateAnswer'>) {
    const question = params.messages.at(-1)!.content;
    if (question === 'fail')
      throw new CaravanError('out_of_memory', 'the model needs 3.2 GiB and 1.1 GiB are free', {
        mend: 'Pause the run that trains, or choose a smaller model.',
      });
    const words = world.answerTo(question).match(/\s*\S+|\s+$/g) ?? [];
    const kept: string[] = [];
    for (const [index, word] of words.entries()) {
      if (cancelled.has(params.answerId)) break;
      if (options.tokenEveryMs) await new Promise((resolve) => setTimeout(resolve, options.tokenEveryMs));
      kept.push(word);
      emit('answerToken', { answerId: params.answerId, text: word, tokens: index + 1 });
    }
    const result = {
      text: kept.join(''),
      ids: kept.map((_, index) => index),
      stopReason: cancelled.has(params.answerId) ? ('cancelled' as const) : ('eos' as const),
      promptTokens: 41,
      timeToFirstTokenMs: 180,
      tokensPerSecond: 38.4,
    };
    const { text, ids, ...measured } = result;
    const facts = {
      ...measured,
      tokens: ids.length,
      contextSize: 512,
      template: 'camelidae' as const,
      sampling: params.sampling,
    };
    const thread = world.threads.find(({ thread: { id } }) => id === params.threadId);
    thread?.messages.push(
      {
        id: `${params.answerId}q`,
        role: 'user',
        content: question,
        model: null,
        answer: null,
        createdAt: Date.now(),
      },
      {
        id: params.answerId,
        role: 'assistant',
        content: text,
        model: params.model,
        answer: facts,
        createdAt: Date.now(),
      },
    );
    return { ...result, facts };
  }

  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, 'http://host').pathname);
    const file = join(page, normalize(path === '/' ? 'index.html' : path));
    if (!file.startsWith(page) || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'content-type': types[extname(file)] ?? 'application/octet-stream',
      'content-security-policy': pagePolicy,
      'x-content-type-options': 'nosniff',
    });
    createReadStream(file).pipe(response);
  });
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, socket, head) => {
    if (away) socket.destroy();
    else sockets.handleUpgrade(request, socket, head, accept);
  });

  function accept(socket: WebSocket): void {
    clients.set(socket, new Set());
    socket.on('close', () => clients.delete(socket));
    socket.on('message', (data) => {
      const message = clientMessageSchema.parse(JSON.parse((data as Buffer).toString('utf8')));
      if (message.type === 'subscribe') {
        clients.set(socket, new Set(message.events));
        return;
      }
      called.push({ name: message.name, params: message.params });
      void respond(message.name as CallName, message.params).then(
        (result) => socket.send(JSON.stringify({ type: 'result', id: message.id, result })),
        (error: unknown) =>
          socket.send(
            JSON.stringify({ type: 'error', id: message.id, error: CaravanError.from(error).toData() }),
          ),
      );
    });
  }
  async function respond(name: CallName, params: unknown): Promise<unknown> {
    const handler = handlers[name] as ((params: unknown) => unknown) | undefined;
    if (!handler) throw new CaravanError('internal', `the scripted host does not know ${name}`);
    return calls[name].result.parse(await handler(calls[name].params.parse(params)));
  }

  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const timer = options.stepEveryMs === undefined ? undefined : setInterval(step, options.stepEveryMs);
  return {
    url: `http://127.0.0.1:${port}/`,
    port,
    runs: world.runs,
    called,
    emit,
    step,
    goAway() {
      away = true;
      for (const socket of clients.keys()) socket.terminate();
    },
    comeBack() {
      away = false;
    },
    async close() {
      clearInterval(timer);
      for (const socket of clients.keys()) socket.terminate();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

if (import.meta.main) {
  const host = await startFakeHost({
    port: Number(process.argv[2] ?? 4999),
    stepEveryMs: 400,
    tokenEveryMs: 25,
    empty: process.argv.includes('--empty'),
  });
  process.stdout.write(`${host.url}\n`);
}
