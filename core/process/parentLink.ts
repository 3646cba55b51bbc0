/** The other end: how a process that was started by a host speaks to it, under Node and in Electron's utility process. */

export interface ParentLink {
  /** Resolves when the message is on its way; a host that is gone hears nothing, and that is no error. */
  send(message: unknown): Promise<void>;
  onMessage(listener: (message: unknown) => void): void;
  /** The host ended or wants this process to end. */
  onGone(listener: () => void): void;
}

/** What Electron puts on `process` inside a utility process. */
interface ParentPort {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (event: { data: unknown }) => void): void;
  on(event: 'close', listener: () => void): void;
}

/** What asks a utility process to end: its port, unlike Node's channel, cannot be closed from the host's side. */
export const endMessage = { type: 'end' } as const;

const beatMs = 1000;

/** @throws Error where no host started this process */
export function connectToParent(beat: unknown): ParentLink {
  const port = (process as { parentPort?: ParentPort }).parentPort;
  const link = port ? electronLink(port) : nodeLink();
  // A terminal's Ctrl+C and hang-up reach the whole group of processes; the host decides what they mean for this one.
  for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
  // When the host is gone nobody reads these pipes, and what is under way must still come to its end.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  setInterval(() => void link.send(beat), beatMs).unref();
  return link;
}

function electronLink(port: ParentPort): ParentLink {
  return {
    send(message) {
      port.postMessage(message);
      return Promise.resolve();
    },
    onMessage: (listener) =>
      port.on('message', ({ data }) => {
        if (!isEnd(data)) listener(data);
      }),
    onGone(listener) {
      let told = false;
      const tell = () => {
        if (!told) listener();
        told = true;
      };
      port.on('close', tell);
      port.on('message', ({ data }) => {
        if (isEnd(data)) tell();
      });
    },
  };
}

function isEnd(data: unknown): boolean {
  return (data as { type?: unknown } | null)?.type === endMessage.type;
}

function nodeLink(): ParentLink {
  if (!process.send) throw new Error('this file is the entry of a process that a host starts, not a command');
  return {
    send: (message) =>
      new Promise((resolve) => {
        if (!process.connected) resolve();
        else process.send!(message, undefined, undefined, () => resolve());
      }),
    onMessage: (listener) => void process.on('message', listener),
    onGone: (listener) => void process.once('disconnect', listener),
  };
}
