import type { Carrier } from '../../core/shared/contract/wire.ts';
import type { Workbench } from '../../core/shared/contract/workbench.ts';

/** The host behind `caravan serve`: a WebSocket at the page's own origin, let in by the page's cookie. */
export function browserWorkbench(page: URL): Workbench {
  const address = new URL('./contract', page);
  address.protocol = page.protocol === 'https:' ? 'wss:' : 'ws:';
  address.search = '';
  address.hash = '';
  return { kind: 'browser', connect: () => openSocket(address.href) };
}

function openSocket(address: string): Promise<Carrier> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(address);
    const messageListeners: ((message: unknown) => void)[] = [];
    const closeListeners: ((reason: string) => void)[] = [];
    let opened = false;
    socket.onopen = () => {
      opened = true;
      resolve({
        send: (message) => socket.send(JSON.stringify(message)),
        onMessage: (listener) => void messageListeners.push(listener),
        onClose: (listener) => void closeListeners.push(listener),
        close: (reason) => socket.close(1000, reason),
      });
    };
    socket.onmessage = ({ data }) => {
      let message: unknown;
      try {
        message = JSON.parse(data as string);
      } catch {
        return; // Not of the contract; the client would drop it as well.
      }
      for (const listener of messageListeners) listener(message);
    };
    socket.onclose = ({ reason }) => {
      const why = reason === '' ? 'the connection was closed' : reason;
      if (!opened) reject(new Error('the host does not answer'));
      for (const listener of closeListeners) listener(why);
    };
  });
}
