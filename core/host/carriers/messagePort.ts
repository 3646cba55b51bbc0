import type { BufferedCarrier } from './BufferedCarrier.ts';

/** What Node's MessagePort and Electron's MessagePortMain have in common, the wrapping of the message apart. */
export interface PortLike {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (message: unknown) => void): unknown;
  on(event: 'close', listener: () => void): unknown;
  start(): void;
  close(): void;
}

/**
 * Either end of a message port. Messages are cloned, not written as JSON, and a port does not tell how much of them is
 * waiting: the window is on the same machine and takes what comes.
 * @param unwrap how the message is found in what the port delivers: Electron's ports deliver an event with `data`
 */
export function messagePortCarrier(
  port: PortLike,
  unwrap: (delivered: unknown) => unknown = (delivered) => delivered,
): BufferedCarrier {
  const closeListeners: ((reason: string) => void)[] = [];
  let closeReason: string | null = null;
  let closed = false;
  port.on('close', () => {
    if (closed) return;
    closed = true;
    for (const listener of closeListeners) listener(closeReason ?? 'the other side closed it');
  });
  return {
    bufferedBytes: 0,
    send(message) {
      if (!closed) port.postMessage(message);
    },
    onMessage(listener) {
      port.on('message', (delivered) => listener(unwrap(delivered)));
      port.start();
    },
    onClose(listener) {
      closeListeners.push(listener);
    },
    onDrain() {
      // Never full.
    },
    close(reason = 'closed here') {
      closeReason ??= reason;
      port.close();
    },
  };
}
