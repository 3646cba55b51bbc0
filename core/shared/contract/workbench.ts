import type { Carrier } from './wire.ts';

/**
 * What the page finds as `window.workbench`: the way to its host. The app's preload script sets it (a message port);
 * in a browser the page makes its own (a WebSocket at its own origin).
 */
export interface Workbench {
  readonly kind: 'app' | 'browser';
  /** A new, open carrier; rejects with a sentence where the host cannot be reached. */
  connect(): Promise<Carrier>;
}
