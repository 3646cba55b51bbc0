import * as z from 'zod';
import { contractErrorSchema } from '../contract/errors.ts';

export const jobStates = [
  'queued',
  'running',
  'paused',
  'stopping',
  'completed',
  'failed',
  'interrupted',
  'cancelled',
] as const;
export type JobState = (typeof jobStates)[number];

export const jobKinds = [
  'import',
  'look',
  'measure',
  'mix',
  'preview',
  'model',
  'train',
  'score',
  'route',
  'plan',
  'demo',
  'export',
  'mix-export',
] as const;

/** `etaMs` is null until the rate is known. */
export const progressSchema = z.object({
  done: z.number(),
  total: z.number().nullable(),
  unit: z.string(),
  rate: z.number().nullable(),
  etaMs: z.number().nullable(),
  /** The stage under way, in words: "deduplicating". */
  stage: z.string().optional(),
});
export type JobProgress = z.infer<typeof progressSchema>;

export const jobSchema = z.object({
  id: z.string(),
  kind: z.enum(jobKinds),
  title: z.string(),
  state: z.enum(jobStates),
  progress: progressSchema.nullable(),
  /** What the job works for or made: a source, mix, model or run id. */
  subjectId: z.string().nullable(),
  /** Place among those that wait for the same device, from 1; null where it does not wait for a turn. */
  place: z.number().int().nullable(),
  /** It waits until it is started by hand, or at the queue's time. */
  held: z.boolean(),
  canPause: z.boolean(),
  canCancel: z.boolean(),
  error: contractErrorSchema.nullable(),
  createdAt: z.number(),
  startedAt: z.number().nullable(),
  endedAt: z.number().nullable(),
});
export type Job = z.infer<typeof jobSchema>;

export function isEnded(state: JobState): boolean {
  return state === 'completed' || state === 'failed' || state === 'interrupted' || state === 'cancelled';
}
