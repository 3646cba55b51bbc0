import { WebSocket } from 'ws';
import { maxAnswerBytes, maxCallBytes, type BufferedCarrier } from './BufferedCarrier.ts';
import { tooLarge } from './localSocket.ts';

/** RFC 6455: policy violated; message too big. */
export const closeCodes = { normal: 1000, goingAway: 1001, policy: 1008 } as const;

const pingMs = 30_000;
/** Below this much left to send the peer counts as caught up. */
const drainedBytes = 64 * 1024;

/**
 * Either end of a WebSocket of the `ws` package; `maxPayload` was set where it was opened. The host's end pings: a tab
 * whose machine went to sleep is found out after two unanswered ones at most.
 */
export function webSocketCarrier(
  socket: WebSocket,
  options: { maxSendBytes: number; ping: boolean; maxMessagesPerSecond?: number },
): BufferedCarrier {
  const messageListeners: ((message: unknown) => void)[] = [];
  const closeListeners: ((reason: string) => void)[] = [];
  const drainListeners: (() => void)[] = [];
  let wasFull = false;
  let answered = true;
  let second = 0;
  let received = 0;

  const ping = options.ping
    ? setInterval(() => {
        if (!answered) {
          socket.terminate();
          return;
        }
        answered = false;
        socket.ping();
      }, pingMs)
    : null;
  ping?.unref();

  socket.on('pong', () => (answered = true));
  socket.on('message', (data, isBinary) => {
    const now = Math.floor(performance.now() / 1000);
    if (now !== second) [second, received] = [now, 0];
    if (++received > (options.maxMessagesPerSecond ?? Infinity)) {
      socket.close(closeCodes.policy, 'too many messages a second');
      return;
    }
    let message: unknown;
    try {
      if (isBinary) throw new Error('binary');
      message = JSON.parse((data as Buffer).toString('utf8'));
    } catch {
      socket.close(closeCodes.policy, 'a message is not JSON text');
      return;
    }
    for (const listener of messageListeners) listener(message);
  });
  // 'close' follows; without a listener the error would end the process.
  socket.on('error', () => undefined);
  socket.on('close', (code, reason) => {
    if (ping) clearInterval(ping);
    const text = reason.toString('utf8') || `the other side closed it (${code})`;
    for (const listener of closeListeners) listener(text);
  });

  return {
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    send(message) {
      if (socket.readyState !== WebSocket.OPEN) return;
      const text = JSON.stringify(message);
      // Two thirds of the limit at most without counting: UTF-8 takes up to three bytes for a unit of a string.
      if (text.length * 3 > options.maxSendBytes) {
        const bytes = Buffer.byteLength(text);
        if (bytes > options.maxSendBytes) throw tooLarge(bytes, options.maxSendBytes);
      }
      socket.send(text, () => {
        if (!wasFull || socket.bufferedAmount > drainedBytes) return;
        wasFull = false;
        for (const listener of drainListeners) listener();
      });
      if (socket.bufferedAmount > drainedBytes) wasFull = true;
    },
    onMessage(listener) {
      messageListeners.push(listener);
    },
    onClose(listener) {
      closeListeners.push(listener);
    },
    onDrain(listener) {
      drainListeners.push(listener);
    },
    close(reason = '') {
      // A close frame holds at most 123 bytes of reason.
      socket.close(closeCodes.normal, Buffer.from(reason).subarray(0, 120).toString('utf8'));
      setTimeout(() => socket.terminate(), 1000).unref();
    },
  };
}

/** The client's end, for Node; a browser uses its own WebSocket. */
export function connectWebSocket(
  url: string,
  headers: Record<string, string> = {},
): Promise<BufferedCarrier> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { maxPayload: maxAnswerBytes, perMessageDeflate: false, headers });
    socket.once('error', reject);
    socket.once('open', () => {
      socket.off('error', reject);
      resolve(webSocketCarrier(socket, { maxSendBytes: maxCallBytes, ping: false }));
    });
  });
}
