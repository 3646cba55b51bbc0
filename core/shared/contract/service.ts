import type { CallName, CallParams, CallResult, EventName, EventPayload } from './contract.ts';

/** The host's side of some calls: what a service implements. Parameters arrive parsed. */
export type Handlers<N extends CallName = CallName> = {
  [K in N]: (params: CallParams<K>) => CallResult<K> | Promise<CallResult<K>>;
};

/** Tells every subscribed client. */
export type EmitEvent = <N extends EventName>(name: N, payload: EventPayload<N>) => void;

/** One of the host's services. `close` ends its work in an order that loses nothing and may take seconds. */
export interface Service<N extends CallName> {
  readonly handlers: Handlers<N>;
  close(): Promise<void>;
}
