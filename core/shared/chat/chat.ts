import * as z from 'zod';
import { templates } from '../dataset/recipe.ts';
import { messageSchema } from '../dataset/source.ts';

export const samplingSchema = z
  .object({
    maxTokens: z.number().int().min(1).max(100_000).default(256),
    temperature: z.number().min(0).max(10).default(0.7),
    topK: z.number().int().min(0).optional(),
    topP: z.number().gt(0).max(1).optional(),
    minP: z.number().min(0).max(1).optional(),
    repetitionPenalty: z.number().positive().optional(),
    seed: z.number().int().min(0).max(0xffffffff).default(0),
    stop: z.array(z.string().min(1)).max(16).default([]),
  })
  .strict();
export type Sampling = z.infer<typeof samplingSchema>;

export const stopReasons = ['eos', 'stop_string', 'length', 'context', 'cancelled'] as const;

export const answerSchema = z.object({
  text: z.string(),
  ids: z.array(z.number().int()),
  stopReason: z.enum(stopReasons),
  promptTokens: z.number().int(),
  timeToFirstTokenMs: z.number(),
  tokensPerSecond: z.number(),
});
export type Answer = z.infer<typeof answerSchema>;

/** Fewer tokens than this say nothing of a pace. */
const fewestForPace = 8;

/** How long an answer is and, where that can be told, how fast it came. */
export function describePace(tokens: number, tokensPerSecond: number): string[] {
  const length = `${tokens} ${tokens === 1 ? 'token' : 'tokens'}`;
  return tokens < fewestForPace ? [length] : [length, `${tokensPerSecond.toFixed(1)} tokens/s`];
}

/** What is kept of an answer beside its text: how it was made, and how it went. */
export const answerFactsSchema = answerSchema.omit({ text: true, ids: true }).extend({
  tokens: z.number().int(),
  /** Positions of the model: prompt and answer together. */
  contextSize: z.number().int(),
  template: z.enum(templates),
  sampling: samplingSchema,
});
export type AnswerFacts = z.infer<typeof answerFactsSchema>;

export const chatThreadSchema = z.object({
  id: z.string(),
  title: z.string(),
  model: z.string(),
  /** The thread beside whose answers this one's stand: panes on one prompt. */
  parent: z.string().nullable(),
  createdAt: z.number(),
  updatedAt: z.number(),
});
export type ChatThread = z.infer<typeof chatThreadSchema>;

export const chatMessageSchema = messageSchema.extend({
  id: z.string(),
  model: z.string().nullable(),
  answer: answerFactsSchema.nullable(),
  createdAt: z.number(),
});
export type ChatMessage = z.infer<typeof chatMessageSchema>;

/** Tokens with the text that each stands for; bytes of one character that are parted over tokens are shown as one. */
export const spelledTokenSchema = z.object({
  text: z.string(),
  ids: z.array(z.number().int()),
  /** A token of the template or the vocabulary that is no text. */
  special: z.boolean(),
  /** Of an answer, not of what was asked. */
  target: z.boolean(),
});
export type SpelledToken = z.infer<typeof spelledTokenSchema>;

export const tokenRoutesSchema = z.object({
  layers: z.number().int(),
  experts: z.number().int(),
  topK: z.number().int(),
  tokens: z.array(spelledTokenSchema),
  /** (tokens, layers, topK): each token's experts, best first, and their weights. */
  chosen: z.array(z.number().int()),
  weights: z.array(z.number()),
});
export type TokenRoutes = z.infer<typeof tokenRoutesSchema>;
