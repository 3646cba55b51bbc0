/**
 * /v1 as OpenAI's API has it: models, chat completions and completions, streamed where asked. It answers holders of its own
 * key alone, with the workbench's calls, and has no rights beyond them.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { EventPayload } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Answer } from '../../shared/chat/chat.ts';
import type { Handlers } from '../../shared/contract/service.ts';
import { securityHeaders } from '../serve/securityHeaders.ts';
import { OpenAiKey } from './OpenAiKey.ts';
import { finishReason, OpenAiError, parseChat, parseText, type Asked } from './openAiRequests.ts';

export type OpenAiHandlers = Pick<
  Handlers,
  'listModels' | 'listRuns' | 'generateAnswer' | 'completeText' | 'cancelAnswer'
>;

export interface OpenAiOptions {
  keyFile: string;
  handlers: OpenAiHandlers;
  log: (line: string) => void;
}

const maxBodyBytes = 4 * 2 ** 20;
/** Answers on their way: they share one machine. */
const maxOpen = 8;
const maxPerMinute = 600;
/** A client that reads no more does not keep a model writing. */
const maxUnsentBytes = 2 ** 20;

export class OpenAiEndpoint {
  readonly key: OpenAiKey;
  readonly #options: OpenAiOptions;
  readonly #listeners = new Map<string, (text: string) => void>();
  #open = 0;
  #rate = { minute: 0, count: 0 };

  constructor(options: OpenAiOptions) {
    this.#options = options;
    this.key = new OpenAiKey(options.keyFile);
  }

  /** The host's event, for the answers that are streamed here. */
  heard({ answerId, text }: EventPayload<'answerToken'>): void {
    this.#listeners.get(answerId)?.(text);
  }

  /** A request for /v1/…, whose Host and Origin are right and whose key was admitted. */
  async answer(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    try {
      this.#checkRate();
      await this.#route(request, response, path);
    } catch (error) {
      this.#fail(response, error);
    }
  }

  refuse(response: ServerResponse, error: OpenAiError): void {
    this.#fail(response, error);
  }

  async #route(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const wanted = path === '/v1/models' || path.startsWith('/v1/models/') ? 'GET' : 'POST';
    const known = wanted === 'GET' || path === '/v1/chat/completions' || path === '/v1/completions';
    if (!known)
      throw new OpenAiError(404, `there is nothing at ${path.slice(0, 200)}`, { code: 'unknown_url' });
    if (request.method !== wanted) {
      response.setHeader('Allow', wanted);
      throw new OpenAiError(405, `${path} takes ${wanted}`, { code: 'method_not_allowed' });
    }
    if (path === '/v1/models') return sendJson(response, 200, { object: 'list', data: await this.#models() });
    if (wanted === 'GET') {
      const id = decode(path.slice('/v1/models/'.length));
      const model = (await this.#models()).find((one) => one.id === id);
      if (!model) throw unknownModel(id);
      return sendJson(response, 200, model);
    }
    const body = await readJson(request);
    if (this.#open >= maxOpen)
      throw new OpenAiError(429, `${maxOpen} answers are on their way already`, {
        type: 'rate_limit_error',
        code: 'rate_limit_exceeded',
      });
    this.#open++;
    try {
      if (path === '/v1/chat/completions') await this.#chat(body, response);
      else await this.#complete(body, response);
    } finally {
      this.#open--;
    }
  }

  async #models(): Promise<{ id: string; object: 'model'; created: number; owned_by: string }[]> {
    const { listModels, listRuns } = this.#options.handlers;
    const runs = (await listRuns({})).filter(
      ({ state, lastCheckpoint }) => state === 'completed' || lastCheckpoint,
    );
    const entry = (id: string, at: number) => ({
      id,
      object: 'model' as const,
      created: Math.floor(at / 1000),
      owned_by: 'caravan',
    });
    return [
      ...(await listModels({})).map(({ name, addedAt }) => entry(name, addedAt)),
      ...runs.map(({ name, createdAt }) => entry(`run:${name}`, createdAt)),
    ];
  }

  #chat(body: unknown, response: ServerResponse): Promise<void> {
    const { messages, continues, ...asked } = parseChat(body);
    const { generateAnswer } = this.#options.handlers;
    const first = { role: 'assistant', content: '' };
    return this.#stream(asked, response, {
      id: 'chatcmpl',
      object: asked.stream ? 'chat.completion.chunk' : 'chat.completion',
      opening: { delta: first, logprobs: null },
      piece: (text) => ({ delta: { content: text }, logprobs: null }),
      closing: { delta: {}, logprobs: null },
      whole: (text) => ({ message: { role: 'assistant', content: text, refusal: null }, logprobs: null }),
      ask: async (answerId) =>
        generateAnswer({
          answerId,
          model: asked.model,
          messages,
          template: 'auto',
          sampling: asked.sampling,
          threadId: null,
          continues,
        }),
    });
  }

  #complete(body: unknown, response: ServerResponse): Promise<void> {
    const { text: prompt, ...asked } = parseText(body);
    const { completeText } = this.#options.handlers;
    return this.#stream(asked, response, {
      id: 'cmpl',
      object: 'text_completion',
      opening: null,
      piece: (text) => ({ text, logprobs: null }),
      closing: { text: '', logprobs: null },
      whole: (text) => ({ text, logprobs: null }),
      ask: async (answerId) =>
        completeText({ answerId, model: asked.model, text: prompt, sampling: asked.sampling }),
    });
  }

  async #stream(asked: Asked, response: ServerResponse, shape: Shape): Promise<void> {
    const answerId = `openai-${randomBytes(12).toString('hex')}`;
    const head = {
      id: `${shape.id}-${answerId.slice('openai-'.length)}`,
      object: shape.object,
      created: Math.floor(Date.now() / 1000),
      model: asked.model,
    };
    const cancel = () =>
      void Promise.resolve(this.#options.handlers.cancelAnswer({ answerId })).catch(() => undefined);
    // Nobody hears the rest: it need not be written.
    response.on('close', cancel);
    const send = (choice: object, finish: string | null) => {
      openStream(response);
      sendEvent(response, {
        ...head,
        choices: [{ index: 0, ...choice, finish_reason: finish }],
        ...(asked.includeUsage && { usage: null }),
      });
      if (response.writableLength > maxUnsentBytes) response.destroy();
    };
    let begun = false;
    if (asked.stream)
      this.#listeners.set(answerId, (text) => {
        if (!begun && shape.opening) send(shape.opening, null);
        begun = true;
        if (text !== '') send(shape.piece(text), null);
      });
    try {
      const answer = await shape.ask(answerId);
      const finish = finishReason(answer.stopReason);
      const usage = usageOf(answer);
      if (!asked.stream)
        return sendJson(response, 200, {
          ...head,
          choices: [{ index: 0, ...shape.whole(answer.text), finish_reason: finish }],
          usage,
        });
      if (!begun && shape.opening) send(shape.opening, null);
      send(shape.closing, finish);
      if (asked.includeUsage) sendEvent(response, { ...head, choices: [], usage });
      response.end('data: [DONE]\n\n');
    } catch (error) {
      throw CaravanError.from(error).code === 'not_found' ? unknownModel(asked.model, error) : error;
    } finally {
      response.off('close', cancel);
      this.#listeners.delete(answerId);
    }
  }

  #checkRate(): void {
    const minute = Math.floor(performance.now() / 60_000);
    if (this.#rate.minute !== minute) this.#rate = { minute, count: 0 };
    if (++this.#rate.count > maxPerMinute)
      throw new OpenAiError(429, `more than ${maxPerMinute} requests in a minute`, {
        type: 'rate_limit_error',
        code: 'rate_limit_exceeded',
      });
  }

  #fail(response: ServerResponse, error: unknown): void {
    const told = error instanceof OpenAiError ? error : this.#translate(error);
    if (response.destroyed) return;
    if (!response.headersSent) {
      sendJson(response, told.status, told.toBody(), told.status === 413 ? { Connection: 'close' } : {});
      return;
    }
    sendEvent(response, told.toBody());
    response.end();
  }

  #translate(error: unknown): OpenAiError {
    const known = CaravanError.from(error);
    if (known.code === 'internal') {
      this.#options.log(
        `bug in the OpenAI endpoint: ${error instanceof Error ? error.stack : String(error)}`,
      );
      return new OpenAiError(500, 'a bug; the log of the host says more', {
        type: 'server_error',
        code: 'internal',
      });
    }
    const message = known.mend === undefined ? known.message : `${known.message}. ${known.mend}`;
    const status = known.code === 'out_of_memory' || known.code === 'engine_died' ? 503 : 400;
    return new OpenAiError(status, message, {
      type: status === 503 ? 'server_error' : 'invalid_request_error',
      code: known.code,
    });
  }
}

/** How chat completions and completions differ. */
interface Shape {
  id: string;
  object: string;
  /** What a stream begins with. */
  opening: object | null;
  piece(text: string): object;
  closing: object;
  whole(text: string): object;
  ask(answerId: string): Promise<Answer>;
}

function unknownModel(id: string, error?: unknown): OpenAiError {
  const why = error instanceof CaravanError ? `: ${error.message}` : '';
  return new OpenAiError(404, `The model '${id.slice(0, 200)}' does not exist${why}`, {
    code: 'model_not_found',
    param: 'model',
  });
}

function usageOf({ promptTokens, ids }: Answer): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: ids.length,
    total_tokens: promptTokens + ids.length,
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function openStream(response: ServerResponse): void {
  if (response.headersSent) return;
  response.writeHead(200, {
    ...securityHeaders,
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-store',
    'X-Accel-Buffering': 'no',
  });
}

function sendEvent(response: ServerResponse, value: object): void {
  response.write(`data: ${JSON.stringify(value)}\n\n`);
}

function sendJson(
  response: ServerResponse,
  status: number,
  value: object,
  headers: Record<string, string> = {},
): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    ...securityHeaders,
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    ...headers,
  });
  response.end(body);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  // What a page of another site may send without asking first has another type.
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? ''))
    throw new OpenAiError(415, 'the body must be application/json', { code: 'unsupported_media_type' });
  const tooLarge = () =>
    new OpenAiError(413, `the body is larger than ${maxBodyBytes / 2 ** 20} MiB`, {
      code: 'request_too_large',
    });
  if (Number(request.headers['content-length'] ?? 0) > maxBodyBytes) throw tooLarge();
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > maxBodyBytes) throw tooLarge();
    pieces.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString('utf8'));
  } catch {
    throw new OpenAiError(400, 'the body is no JSON', { code: 'invalid_json' });
  }
}
