/** What a host and a process that answers requests say to each other, whatever the requests are. */
import * as z from 'zod';
import { contractErrorSchema } from '../shared/contract/errors.ts';

/** What such a process is asked. */
export const requestMessageSchema = z.object({
  type: z.literal('request'),
  id: z.number(),
  name: z.string(),
  params: z.unknown(),
});

/** What every such process says; others of its messages that carry a request's id are news of that request. */
export const answerMessageSchemas = [
  /** Every second: the event loop turns. */
  z.object({ type: z.literal('beat') }),
  z.object({ type: z.literal('result'), id: z.number(), result: z.unknown() }),
  z.object({ type: z.literal('error'), id: z.number(), error: contractErrorSchema }),
] as const;
