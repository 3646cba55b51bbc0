import * as z from 'zod';
import { contractErrorSchema } from './errors.ts';

/** What a client sends. Ids are the client's own, unique among its open calls. */
export const clientMessageSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('call'), id: z.number().int(), name: z.string(), params: z.unknown() }),
  /** Events of these names; replaces what was subscribed before. */
  z.object({ type: z.literal('subscribe'), events: z.array(z.string()).max(100) }),
]);
export type ClientMessage = z.infer<typeof clientMessageSchema>;

/** What a host sends. */
export const hostMessageSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('result'), id: z.number().int(), result: z.unknown() }),
  z.object({ type: z.literal('error'), id: z.number().int(), error: contractErrorSchema }),
  z.object({ type: z.literal('event'), name: z.string(), payload: z.unknown() }),
]);
export type HostMessage = z.infer<typeof hostMessageSchema>;

/** A two-way channel of messages: message port, WebSocket or local socket. Both ends use the same shape. */
export interface Carrier {
  send(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
  onClose(listener: (reason: string) => void): void;
  close(reason?: string): void;
}

/** Where the page's server takes WebSocket connections that carry the contract. */
export const webSocketPath = '/contract';
