/** The protocol between a host and its hub process. Both ends parse what they receive. */
import * as z from 'zod';
import { answerMessageSchemas, requestMessageSchema } from '../process/requestMessages.ts';
import { hubKinds, hubPlanSchema, hubReferenceSchema } from '../shared/hub/hubReference.ts';

export const requests = {
  plan: {
    params: z.object({
      kind: z.enum(hubKinds),
      reference: hubReferenceSchema,
      endpoint: z.string().optional(),
      token: z.string().optional(),
      root: z.string(),
    }),
    result: hubPlanSchema,
  },
  /** Resolves when every file is whole and checked. */
  download: {
    params: z.object({ plan: hubPlanSchema, token: z.string().optional() }),
    result: z.object({}),
  },
} as const;

export type RequestName = keyof typeof requests;
export type RequestParams<N extends RequestName> = z.infer<(typeof requests)[N]['params']>;
export type RequestResult<N extends RequestName> = z.infer<(typeof requests)[N]['result']>;

export const toHubSchema = z.discriminatedUnion('type', [
  requestMessageSchema,
  z.object({ type: z.literal('cancel'), id: z.number() }),
]);

export const fromHubSchema = z.discriminatedUnion('type', [
  ...answerMessageSchemas,
  z.object({ type: z.literal('progress'), id: z.number(), done: z.number(), total: z.number() }),
]);
export type FromHub = z.infer<typeof fromHubSchema>;
