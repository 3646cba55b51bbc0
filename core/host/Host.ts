import { chmodSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { contractVersion, type EventName, type EventPayload } from '../shared/contract/contract.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Handlers } from '../shared/contract/service.ts';
import { maxAnswerBytes, maxCallBytes, type BufferedCarrier } from './carriers/BufferedCarrier.ts';
import { localSocketCarrier } from './carriers/localSocket.ts';
import type { HostHandlers, Services } from './composeServices.ts';
import { createDispatcher, type Dispatcher } from './Dispatcher.ts';
import { localAddresses, prepareSocketFolder } from './localAddress.ts';
import { OpenAiEndpoint } from './openai/OpenAiEndpoint.ts';
import { Serving } from './serve/Serving.ts';

export interface HostOptions {
  home: string;
  version: string;
  log: (line: string) => void;
  /** Builds the services; `emit` reaches every client. */
  services: (emit: Dispatcher['emit']) => Services | Promise<Services>;
  /** Ends this process's host: by `shutdownHost`, or for want of anything to do. */
  onEnd: (reason: string) => void;
  /** How long to wait with nothing to do; null: for good. */
  idleMs: number | null;
  /** Told when other processes work for this host than before. */
  onProcesses?: (pids: number[]) => void;
  /** Folder of the built page; by default the checkout's. */
  pageDir?: string;
}

/** The longest that the host may keep others waiting. */
const longestBlockMs = 50;
const idleWatchMs = 5000;
const processWatchMs = 250;
/** Below `longestBlockMs`, so that work between two looks is one piece or nearly so. */
const delayWatchMs = 20;

/** The services, and everyone who speaks to them. */
export class Host {
  readonly startedAt = Date.now();
  readonly #options: HostOptions;
  readonly #dispatcher: Dispatcher;
  readonly #serving: Serving;
  readonly #openAi: OpenAiEndpoint;
  readonly #servers: Server[] = [];
  readonly #watches: NodeJS.Timeout[] = [];
  readonly #services: Services;
  #lastBusyAt = performance.now();
  #closing = false;

  static async open(options: HostOptions): Promise<Host> {
    let host: Host | null = null;
    // Services may have something to tell while they are built; nobody is there yet to hear it.
    const services = await options.services((name, payload) => host?.emit(name, payload));
    host = new Host(options, services);
    return host;
  }

  private constructor(options: HostOptions, services: Services) {
    this.#options = options;
    this.#services = services;
    const own: HostHandlers = {
      hello: () => ({
        contractVersion,
        version: options.version,
        home: options.home,
        pid: process.pid,
        startedAt: this.startedAt,
      }),
      shutdownHost: ({ onlyIfIdle }) => this.#shutdown(onlyIfIdle),
      startServe: (params, caller) => this.#serving.start(params, caller),
      stopServe: (_params, caller) => this.#serving.stop(caller),
      openAiStatus: () => this.#openAiStatus(),
      setOpenAi: ({ enabled, newKey }) => {
        const key = this.#openAi.key.set(enabled, newKey);
        return { ...this.#openAiStatus(), key };
      },
    };
    this.#dispatcher = createDispatcher({
      handlers: { ...services.handlers, ...own } as Handlers,
      onBug: (what, error) =>
        options.log(
          `bug in ${what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        ),
      onClientsChanged: () => this.#touch(),
    });
    this.#openAi = new OpenAiEndpoint({
      keyFile: join(options.home, 'host', 'openai-key'),
      handlers: services.handlers,
      log: options.log,
    });
    this.#serving = new Serving({
      home: options.home,
      openAi: this.#openAi,
      log: options.log,
      attach: (carrier) => this.attach(carrier),
      ...(options.pageDir !== undefined && { pageDir: options.pageDir }),
    });
    this.#watchDelay();
    if (options.onProcesses) this.#watchProcesses(options.onProcesses);
    if (options.idleMs !== null) this.#watchIdle(options.idleMs);
  }

  /** What opening the services had to tell people. */
  get notes(): readonly string[] {
    return this.#services.notes;
  }

  get dispatcher(): Dispatcher {
    return this.#dispatcher;
  }

  /** Reaches every client, and what streams outside the contract. */
  emit<N extends EventName>(name: N, payload: EventPayload<N>): void {
    if (name === 'answerToken') this.#openAi.heard(payload as EventPayload<'answerToken'>);
    this.#dispatcher.emit(name, payload);
  }

  /** Serves a client that came over whatever carrier. */
  attach(carrier: BufferedCarrier): void {
    if (this.#closing) carrier.close('the host is closing');
    else this.#dispatcher.attach(carrier);
  }

  /** Listens at the first of a home's addresses that can be had. @returns the address */
  async listenLocally(lockId: string): Promise<string> {
    const failures: string[] = [];
    for (const address of localAddresses(this.#options.home, lockId)) {
      const isPipe = process.platform === 'win32';
      if (!isPipe && !prepareSocketFolder(dirname(address))) {
        failures.push(`${address}: its folder is not this user's alone`);
        continue;
      }
      const server = createServer((socket) =>
        this.attach(
          localSocketCarrier(socket, { maxReceiveBytes: maxCallBytes, maxSendBytes: maxAnswerBytes }),
        ),
      );
      server.maxConnections = 256;
      try {
        await new Promise<void>((resolve, reject) => {
          server.once('error', reject);
          server.listen(address, () => {
            server.off('error', reject);
            resolve();
          });
        });
      } catch (error) {
        failures.push(`${address}: ${(error as Error).message}`);
        continue;
      }
      if (!isPipe) chmodSync(address, 0o600);
      server.on('error', (error) => this.#options.log(`local socket: ${error.message}`));
      this.#servers.push(server);
      return address;
    }
    throw new CaravanError('permission_denied', `no local socket could be opened (${failures.join('; ')})`, {
      mend: 'Set CARAVAN_HOME to a folder on a local disk.',
    });
  }

  /** Takes no more clients, ends the work, and lets those who watch see it end. */
  async close(reason: string): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    for (const watch of this.#watches) clearInterval(watch);
    // Resolves when the last connection is gone, which is later.
    for (const server of this.#servers) server.close();
    this.#dispatcher.emit('hostClosing', { reason });
    try {
      await this.#services.close();
    } finally {
      await this.#serving.close();
      this.#dispatcher.closeAll(reason);
    }
  }

  #openAiStatus() {
    const { address } = this.#serving;
    const { isEnabled, exists } = this.#openAi.key;
    return { enabled: isEnabled, hasKey: exists, url: address === null ? null : `${address}/v1` };
  }

  #shutdown(onlyIfIdle: boolean): Record<string, never> {
    if (onlyIfIdle && this.#services.isBusy())
      throw new CaravanError('wrong_state', 'the host has jobs or runs at work', {
        mend: 'Wait for them to end, or stop them.',
      });
    // After the answer is out.
    setTimeout(() => this.#options.onEnd('a client asked for it'), 20);
    return {};
  }

  #touch(): void {
    this.#lastBusyAt = performance.now();
  }

  #watchProcesses(tell: (pids: number[]) => void): void {
    let known = '';
    const watch = setInterval(() => {
      const pids = this.#services.processIds();
      if (pids.join() === known) return;
      known = pids.join();
      tell(pids);
    }, processWatchMs);
    watch.unref();
    this.#watches.push(watch);
  }

  #watchIdle(idleMs: number): void {
    const watch = setInterval(
      () => {
        if (this.#dispatcher.clientCount > 0 || this.#serving.isOpen || this.#services.isBusy())
          this.#touch();
        else if (performance.now() - this.#lastBusyAt >= idleMs) {
          clearInterval(watch);
          this.#options.onEnd('it had nothing to do');
        }
      },
      Math.max(10, Math.min(idleWatchMs, idleMs / 4)),
    );
    this.#watches.push(watch);
  }

  /**
   * The host must never keep a window waiting: where it did, the log says so. Work of this thread is what counts; a machine
   * that gives the host no processor is none of its faults.
   */
  #watchDelay(): void {
    let before = process.threadCpuUsage();
    const watch = setInterval(() => {
      const { user, system } = process.threadCpuUsage(before);
      before = process.threadCpuUsage();
      const workMs = (user + system) / 1000;
      if (workMs > longestBlockMs) this.#options.log(`blocked for ${Math.round(workMs)} ms`);
    }, delayWatchMs);
    watch.unref();
    this.#watches.push(watch);
  }
}
