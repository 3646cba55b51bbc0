import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CallParams, CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { BufferedCarrier } from '../carriers/BufferedCarrier.ts';
import { Access } from './Access.ts';
import { openPageServer, type PageServer } from './PageServer.ts';

export interface ServingDeps {
  home: string;
  attach: (carrier: BufferedCarrier) => void;
  log: (line: string) => void;
  /** Folder of the built page. */
  pageDir?: string;
}

/** The calls `startServe` and `stopServe`: at most one page server in a host. */
export class Serving {
  readonly #deps: ServingDeps;
  readonly #pageDir: string;
  #server: PageServer | null = null;
  #access: Access | null = null;
  /** Starts and stops one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(deps: ServingDeps) {
    this.#deps = deps;
    this.#pageDir = deps.pageDir ?? fileURLToPath(new URL('../../../out/renderer', import.meta.url));
  }

  get isOpen(): boolean {
    return this.#server !== null;
  }

  start(params: CallParams<'startServe'>): Promise<CallResult<'startServe'>> {
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
      return { url: server.launchUrl(), port: server.port, warning: server.warning };
    });
  }

  stop(): Promise<Record<string, never>> {
    return this.#inTurn(async () => {
      const server = this.#server;
      this.#server = null;
      await server?.close();
      // A cookie of this server must not open the next one.
      this.#access?.endSessions();
      return {};
    });
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
