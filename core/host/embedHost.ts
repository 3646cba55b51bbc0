import type { SpawnProcess } from '../process/supervise.ts';
import type { Client } from '../shared/contract/client.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { EmitEvent } from '../shared/contract/service.ts';
import type { BufferedCarrier } from './carriers/BufferedCarrier.ts';
import { connectLocalSocket } from './carriers/localSocket.ts';
import type { Services } from './composeServices.ts';
import { connectOrStart } from './connect.ts';
import type { Host } from './Host.ts';
import { openHome } from './home.ts';
import { readLocks } from './HostLock.ts';
import { runHost } from './runHost.ts';

export interface EmbedOptions {
  home?: string;
  spawn: SpawnProcess;
  onRemark: (text: string) => void;
  openServices: (
    home: string,
    endedUncleanly: boolean,
    emit: EmitEvent,
    spawn: SpawnProcess,
  ) => Promise<Services>;
}

/** This process's way to its home's host, which it is itself where none lived. */
export interface HostLink {
  /** For what this process wants to know of the host. */
  readonly client: Client;
  /** Whether the host ends with this process. */
  readonly isOwn: boolean;
  /** Serves a window: straight by the own host, else by a line of its own to the other. */
  attach(carrier: BufferedCarrier): Promise<void>;
  /** Ends the own host, with everything saved; leaves another alone. */
  close(): Promise<void>;
}

/** @throws as `connectOrStart` does */
export async function embedHost(options: EmbedOptions): Promise<HostLink> {
  const home = openHome(options.home);
  let own: { host: Host; ended: Promise<number> } | null = null;

  async function startHere(_home: string, remark: (text: string) => void): Promise<void> {
    const { promise: stands, resolve, reject } = Promise.withResolvers<void>();
    let host: Host | null = null;
    const ended = runHost({
      home,
      // It lives as long as the app does.
      idleMs: null,
      openServices: (at, endedUncleanly, emit) =>
        options.openServices(at, endedUncleanly, emit, options.spawn),
      onHost: (opened) => (host = opened),
      report(message) {
        if (message.type === 'waiting') remark(message.remark);
        else if (message.type === 'failed') reject(CaravanError.fromData(message.error));
        else {
          if (message.type === 'ready') for (const text of message.remarks) remark(text);
          resolve();
        }
      },
    });
    void ended.then(() => (own = null));
    await stands;
    if (host !== null) own = { host, ended };
  }

  const client = await connectOrStart({ home, onRemark: options.onRemark, start: startHere });
  return {
    client,
    get isOwn() {
      return own !== null;
    },
    async attach(carrier) {
      if (own !== null) own.host.attach(carrier);
      else relay(carrier, await connectToOther(home));
    },
    async close() {
      const ending = own?.ended;
      if (ending !== undefined) await client.call('shutdownHost', {}).catch(() => undefined);
      client.close();
      await ending;
    },
  };
}

async function connectToOther(home: string): Promise<BufferedCarrier> {
  const address = readLocks(home).find(({ life, record }) => life !== 'dead' && record.state === 'running')
    ?.record.address;
  if (address == null) throw new CaravanError('host_unreachable', 'the host of this home is gone');
  return connectLocalSocket(address);
}

/** Passes messages on, unread: each end parses what it gets. */
export function relay(window: BufferedCarrier, host: BufferedCarrier): void {
  host.onMessage((message) => window.send(message));
  window.onMessage((message) => {
    try {
      host.send(message);
    } catch (error) {
      // Larger than a host takes: the window hears it as it would from its own host.
      const { type, id } = message as { type?: unknown; id?: unknown };
      if (type === 'call') window.send({ type: 'error', id, error: CaravanError.from(error).toData() });
    }
  });
  host.onClose((reason) => window.close(reason));
  window.onClose((reason) => host.close(reason));
}
