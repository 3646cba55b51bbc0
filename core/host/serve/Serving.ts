import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CallParams, CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { BufferedCarrier } from '../carriers/BufferedCarrier.ts';
import type { Caller } from '../Dispatcher.ts';
import type { OpenAiEndpoint } from '../openai/OpenAiEndpoint.ts';
import { Access } from './Access.ts';
import { openPageServer, type PageServer } from './PageServer.ts';

export interface ServingDeps {
  home: string;
  openAi: OpenAiEndpoint;
  attach: (carrier: BufferedCarrier) => void;
  log: (line: string) => void;
  /** Folder of the built page. */
  pageDir?: string;
}

/**
 * The calls `startServe` and `stopServe`: at most one page server in a host. It stays open as long as one of those who asked
 * for it is connected and has not asked to stop: a `caravan serve` that was killed leaves no open port behind.
 */
export class Serving {
  readonly #deps: ServingDeps;
  readonly #pageDir: string;
  #server: PageServer | null = null;
  #access: Access | null = null;
  readonly #holders = new Set<Caller>();
  /** Starts and stops one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(deps: ServingDeps) {
    this.#deps = deps;
    this.#pageDir = deps.pageDir ?? fileURLToPath(new URL('../../../out/renderer', import.meta.url));
  }

  get isOpen(): boolean {
    return this.#server !== null;
  }

  /** Where it is reached; null while it is closed. */
  get address(): string | null {
    return this.#server?.url ?? null;
  }

  start(params: CallParams<'startServe'>, caller: Caller): Promise<CallResult<'startServe'>> {
    return this.#inTurn(async () => {
      const server = (this.#server ??= await this.#open(params));
      const otherPort = params.port !== undefined && params.port !== 0 && params.port !== server.port;
      if (otherPort || params.host !== server.host)
        throw new CaravanError(
          'wrong_state',
          `the workbench is open already, on ${server.host}:${server.port}`,
          {
            place: { field: otherPort ? 'port' : 'host' },
            mend: 'End that `caravan serve` first (Ctrl-C there).',
          },
        );
      if (params.newToken) {
        this.#access!.rotate();
        server.dropPages('the token was changed');
      }
      if (!this.#holders.has(caller)) {
        this.#holders.add(caller);
        caller.onGone(() => void this.stop(caller));
      }
      return { url: server.launchUrl(), port: server.port, warning: server.warning };
    });
  }

  stop(caller: Caller): Promise<Record<string, never>> {
    return this.#inTurn(async () => {
      if (this.#holders.delete(caller) && this.#holders.size === 0) await this.#close();
      return {};
    });
  }

  close(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  async #close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.#holders.clear();
    await server?.close();
    // A cookie of this server must not open the next one.
    this.#access?.endSessions();
  }

  async #open(params: CallParams<'startServe'>): Promise<PageServer> {
    if (!existsSync(join(this.#pageDir, 'index.html')))
      throw new CaravanError('missing_dependency', 'the page of the workbench is not built', {
        place: { file: this.#pageDir },
        mend: 'Run: npm run build:renderer',
      });
    this.#access ??= new Access(join(this.#deps.home, 'host', 'serve-token'));
    return openPageServer({
      host: params.host,
      port: params.port,
      allowedHosts: params.allowedHosts,
      pageDir: this.#pageDir,
      access: this.#access,
      openAi: this.#deps.openAi,
      attach: this.#deps.attach,
      log: this.#deps.log,
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}
