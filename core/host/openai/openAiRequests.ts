/** What OpenAI's clients ask, as this host's calls understand it. Pure but for the seed of who gives none. */
import { randomInt } from 'node:crypto';
import * as z from 'zod';
import type { stopReasons } from '../../shared/chat/chat.ts';
import { samplingSchema, type Sampling } from '../../shared/chat/chat.ts';
import type { Message } from '../../shared/dataset/source.ts';

/** As OpenAI's API tells what is wrong. */
export class OpenAiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;

  constructor(
    status: number,
    message: string,
    {
      type = 'invalid_request_error',
      code = null,
      param = null,
    }: {
      type?: string;
      code?: string | null;
      param?: string | null;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.type = type;
    this.code = code;
    this.param = param;
  }

  toBody(): object {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

/** Where a request names none. OpenAI's own is as much as fits; a small machine would write for hours. */
const defaultMaxTokens = { chat: 1024, text: 16 };

const content = z.union([
  z.string(),
  z
    .array(z.object({ type: z.literal('text'), text: z.string() }))
    .transform((parts) => parts.map(({ text }) => text).join('')),
]);
const roles = { system: 'system', developer: 'system', user: 'user', assistant: 'assistant' } as const;

const common = {
  model: z.string().min(1).max(1000),
  max_tokens: z.number().int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(16)]).nullish(),
  seed: z.number().int().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().optional() }).nullish(),
  user: z.string().nullish(),
  // What llama.cpp's and vLLM's servers take beside it.
  top_k: z.number().int().min(0).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  // What no local model does: taken where it asks for nothing.
  n: z.literal(1).nullish(),
  presence_penalty: z.literal(0).nullish(),
  frequency_penalty: z.literal(0).nullish(),
  logit_bias: z.object({}).strict().nullish(),
};

const chatSchema = z.object({
  ...common,
  messages: z
    .array(
      z.object({
        role: z.enum(['system', 'developer', 'user', 'assistant']),
        content,
        name: z.string().optional(),
      }),
    )
    .min(1)
    .max(10_000),
  max_completion_tokens: z.number().int().min(1).nullish(),
  response_format: z.object({ type: z.literal('text') }).nullish(),
  tools: z.array(z.never()).nullish(),
  tool_choice: z.literal('none').nullish(),
  logprobs: z.literal(false).nullish(),
});

const textSchema = z.object({
  ...common,
  prompt: z.union([z.string().min(1), z.tuple([z.string().min(1)]).transform(([one]) => one)]),
  echo: z.literal(false).nullish(),
  best_of: z.literal(1).nullish(),
  logprobs: z.literal(0).nullish(),
  suffix: z.literal('').nullish(),
});

export interface Asked {
  model: string;
  stream: boolean;
  includeUsage: boolean;
  sampling: Sampling;
}

export function parseChat(body: unknown): Asked & { messages: Message[]; continues: boolean } {
  const asked = parse(chatSchema, body);
  const messages = asked.messages.map(({ role, content: text }) => ({ role: roles[role], content: text }));
  const last = messages.at(-1)!.role;
  if (last === 'system')
    throw new OpenAiError(400, "the last message must be the user's, or an answer to go on with", {
      param: 'messages',
    });
  return {
    ...readCommon(asked, asked.max_completion_tokens ?? asked.max_tokens ?? defaultMaxTokens.chat),
    messages,
    continues: last === 'assistant',
  };
}

export function parseText(body: unknown): Asked & { text: string } {
  const asked = parse(textSchema, body);
  return { ...readCommon(asked, asked.max_tokens ?? defaultMaxTokens.text), text: asked.prompt };
}

function readCommon(asked: z.infer<z.ZodObject<typeof common>>, maxTokens: number): Asked {
  const {
    temperature,
    top_p: topP,
    top_k: topK,
    min_p: minP,
    repetition_penalty: penalty,
    seed,
    stop,
  } = asked;
  const sampling = samplingSchema.safeParse({
    maxTokens: Math.min(maxTokens, 100_000),
    temperature: temperature ?? 1,
    ...(topP != null && { topP }),
    ...(topK != null && { topK }),
    ...(minP != null && { minP }),
    ...(penalty != null && { repetitionPenalty: penalty }),
    seed: seed == null ? randomInt(2 ** 32) : seed >>> 0,
    stop: [stop ?? []].flat(),
  });
  if (!sampling.success) throw new OpenAiError(400, sampling.error.issues[0]!.message);
  return {
    model: asked.model,
    stream: asked.stream ?? false,
    includeUsage: asked.stream_options?.include_usage ?? false,
    sampling: sampling.data,
  };
}

function parse<S extends z.ZodType>(schema: S, body: unknown): z.infer<S> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const param = issue.path.join('.') || null;
  throw new OpenAiError(400, `${param ?? 'the body'}: ${issue.message}`, {
    param,
    code: 'unsupported_value',
  });
}

export function finishReason(stopReason: (typeof stopReasons)[number]): 'stop' | 'length' {
  return stopReason === 'length' || stopReason === 'context' ? 'length' : 'stop';
}
