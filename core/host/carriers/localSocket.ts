import { createConnection, type Socket } from 'node:net';
import { CaravanError } from '../../shared/contract/errors.ts';
import { maxAnswerBytes, maxCallBytes, type BufferedCarrier } from './BufferedCarrier.ts';

/** Frame: length of the body in bytes (4, big-endian), then the message as JSON in UTF-8. */
const headerBytes = 4;

/** Either end of a local socket. Each side limits what it takes in, and refuses to send what the other would not take. */
export function localSocketCarrier(
  socket: Socket,
  limits: { maxReceiveBytes: number; maxSendBytes: number },
): BufferedCarrier {
  const messageListeners: ((message: unknown) => void)[] = [];
  const closeListeners: ((reason: string) => void)[] = [];
  const drainListeners: (() => void)[] = [];
  let chunks: Buffer[] = [];
  let buffered = 0;
  let bodyBytes: number | null = null;
  let closeReason: string | null = null;
  let closed = false;

  socket.setNoDelay?.(true);
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    buffered += chunk.length;
    while (!closed && closeReason === null) {
      if (bodyBytes === null) {
        if (buffered < headerBytes) return;
        bodyBytes = take(headerBytes).readUInt32BE(0);
        if (bodyBytes > limits.maxReceiveBytes) {
          fail(`a message of ${bodyBytes} bytes is over the limit of ${limits.maxReceiveBytes}`);
          return;
        }
      }
      if (buffered < bodyBytes) return;
      const body = take(bodyBytes);
      bodyBytes = null;
      let message: unknown;
      try {
        message = JSON.parse(body.toString('utf8'));
      } catch {
        fail('a message is not JSON');
        return;
      }
      for (const listener of messageListeners) listener(message);
    }
  });
  socket.on('drain', () => {
    for (const listener of drainListeners) listener();
  });
  socket.on('error', (error) => (closeReason ??= error.message));
  socket.on('close', () => {
    closed = true;
    chunks = [];
    for (const listener of closeListeners) listener(closeReason ?? 'the other side closed it');
  });

  function take(count: number): Buffer {
    if (chunks.length > 1 && chunks[0]!.length < count) chunks = [Buffer.concat(chunks)];
    const first = chunks[0] ?? Buffer.alloc(0);
    buffered -= count;
    if (first.length === count) {
      chunks.shift();
      return first;
    }
    chunks[0] = first.subarray(count);
    return first.subarray(0, count);
  }

  function fail(reason: string): void {
    closeReason = reason;
    socket.destroy();
  }

  return {
    get bufferedBytes() {
      return socket.writableLength;
    },
    send(message) {
      if (closed || closeReason !== null) return;
      const body = Buffer.from(JSON.stringify(message), 'utf8');
      if (body.length > limits.maxSendBytes) throw tooLarge(body.length, limits.maxSendBytes);
      const header = Buffer.alloc(headerBytes);
      header.writeUInt32BE(body.length, 0);
      socket.cork();
      socket.write(header);
      socket.write(body);
      socket.uncork();
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
    close(reason = 'closed here') {
      closeReason ??= reason;
      // What was sent still goes out, but a peer that reads nothing must not keep the socket for good.
      socket.end();
      setTimeout(() => socket.destroy(), 1000).unref();
    },
  };
}

/** @throws Error with the system's code (ENOENT, ECONNREFUSED) where nobody listens there */
export function connectLocalSocket(address: string): Promise<BufferedCarrier> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path: address });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(localSocketCarrier(socket, { maxReceiveBytes: maxAnswerBytes, maxSendBytes: maxCallBytes }));
    });
  });
}

export function tooLarge(bytes: number, limit: number): CaravanError {
  return new CaravanError(
    'bad_option',
    `the message has ${bytes} bytes, more than the ${limit} that one call may have`,
    {
      mend: 'Send it in several calls.',
    },
  );
}
