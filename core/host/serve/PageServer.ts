/**
 * The workbench for browsers: the page's files and the contract over WebSocket, behind the rules of requestRules.ts and
 * Access.ts. It lives in the host and answers nobody who did not get in by them.
 */
import {
  createServer,
  STATUS_CODES,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { networkInterfaces, hostname } from 'node:os';
import { isIP, type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { CaravanError } from '../../shared/contract/errors.ts';
import { webSocketPath } from '../../shared/contract/wire.ts';
import { maxAnswerBytes, maxCallBytes, type BufferedCarrier } from '../carriers/BufferedCarrier.ts';
import { closeCodes, webSocketCarrier } from '../carriers/webSocket.ts';
import type { OpenAiEndpoint } from '../openai/OpenAiEndpoint.ts';
import { OpenAiError } from '../openai/openAiRequests.ts';
import type { Access } from './Access.ts';
import { findPageFile, sendPageFile } from './pageFiles.ts';
import {
  allowedNames,
  bracketed,
  checkSource,
  isNavigation,
  type AllowedNames,
  type Refusal,
} from './requestRules.ts';
import { securityHeaders } from './securityHeaders.ts';

export const defaultPort = 7717;
/** The default port and those after it, until one is free. */
const portsToTry = 32;

const maxConnections = 256;
const maxWebSockets = 64;
const maxMessagesPerSecond = 1000;
/** Requests without a valid token or cookie, a minute; beyond that they are not even looked at. */
const maxDeniedPerMinute = 120;

export interface PageServerOptions {
  host: string;
  /** Absent: the default port or the next free one. 0: any. */
  port?: number | undefined;
  allowedHosts: string[];
  /** Folder of the built page. */
  pageDir: string;
  access: Access;
  /** What answers /v1. */
  openAi: OpenAiEndpoint;
  attach: (carrier: BufferedCarrier) => void;
  log: (line: string) => void;
}

export interface PageServer {
  readonly host: string;
  readonly port: number;
  /** What whoever opened it to a network must know; null on loopback. */
  readonly warning: string | null;
  /** Its address, which alone opens nothing. */
  readonly url: string;
  /** An address that works once. */
  launchUrl(): string;
  /** Ends all connections of pages, which then need a new launch token where `access` was rotated. */
  dropPages(reason: string): void;
  close(): Promise<void>;
}

/** @throws `bad_option` where the address or port cannot be had */
export async function openPageServer(options: PageServerOptions): Promise<PageServer> {
  const handler = new PageRequests(options);
  const { servers, port } = await listen(options, () => handler.createServer());
  handler.opened(port, allowedNames(namesOf(options.host), port, options.allowedHosts));
  const loopback = isLoopback(options.host);
  const shown = isUnspecified(options.host) ? hostname() : options.host;
  const url = `http://${bracketed(shown)}:${port}`;
  return {
    host: options.host,
    port,
    url,
    warning: loopback
      ? null
      : `The workbench listens on ${options.host}: everybody on that network can reach it and sees what you send, unencrypted; ` +
        `only the token keeps them out. Safer: serve without --host and use ssh -L ${port}:127.0.0.1:${port} from the other machine.`,
    launchUrl: () => `${url}/?token=${options.access.createLaunchToken()}`,
    dropPages: (reason) => handler.dropPages(reason),
    async close() {
      const closing = servers.map((server) => new Promise((resolve) => server.close(resolve)));
      handler.dropPages('the page server is closing');
      for (const server of servers) server.closeIdleConnections();
      const force = setTimeout(() => {
        handler.terminate();
        for (const server of servers) server.closeAllConnections();
      }, 500);
      await Promise.all(closing);
      clearTimeout(force);
    },
  };
}

class PageRequests {
  readonly #options: PageServerOptions;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxCallBytes,
    perMessageDeflate: false,
    clientTracking: true,
  });
  #port = 0;
  #names: AllowedNames = { hosts: new Set(), origins: new Set() };
  #denied = { minute: 0, count: 0, logged: 0 };

  constructor(options: PageServerOptions) {
    this.#options = options;
  }

  opened(port: number, names: AllowedNames): void {
    this.#port = port;
    this.#names = names;
  }

  createServer(): Server {
    const server = createServer({
      maxHeaderSize: 16 * 1024,
      headersTimeout: 10_000,
      requestTimeout: 20_000,
      keepAliveTimeout: 5_000,
      connectionsCheckingInterval: 2_000,
      // The rules look at the headers themselves.
      requireHostHeader: false,
    });
    server.maxConnections = maxConnections;
    server.on('request', (request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        this.#options.log(`page server: ${String(error)}`);
        response.destroy();
      });
    });
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    server.on('clientError', (_error, socket) => refuseSocket(socket, 400));
    return server;
  }

  dropPages(reason: string): void {
    for (const socket of this.#sockets.clients) socket.close(closeCodes.goingAway, reason);
  }

  terminate(): void {
    for (const socket of this.#sockets.clients) socket.terminate();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers, rawHeaders } = request;
    const refusal = checkSource({ method, url, headers, rawHeaders }, this.#names, false);
    if (refusal) {
      this.#refuse(request, response, refusal);
      return;
    }
    const { pathname, searchParams } = new URL(url, 'http://local');
    if (pathname.startsWith('/v1/')) {
      await this.#answerOpenAi(request, response, pathname);
      return;
    }
    if (!this.#options.access.admits(headers, this.#port)) {
      this.#admit(request, response, pathname, searchParams.get('token'));
      return;
    }
    if (method !== 'GET' && method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      this.#refuse(request, response, { status: 405, reason: 'method' });
      return;
    }
    // With a session already: take the token out of the address bar all the same.
    if (pathname === '/' && searchParams.has('token')) {
      response.writeHead(303, { ...securityHeaders, Location: '/', 'Cache-Control': 'no-store' }).end();
      return;
    }
    // Not `pathname`: URL has already folded `..` away, and what asks for that is to be refused.
    const file = await findPageFile(this.#options.pageDir, url.split('?', 1)[0]!);
    if (file === null || file === 'bad') {
      this.#refuse(
        request,
        response,
        file === null ? { status: 404, reason: 'no such file' } : { status: 400, reason: 'path' },
      );
      return;
    }
    await sendPageFile(file, response, securityHeaders, { isHead: method === 'HEAD' });
  }

  /** Its own key opens it and nothing else: neither the page's cookie nor the token of programs. */
  async #answerOpenAi(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const { openAi } = this.#options;
    const close = () => response.setHeader('Connection', 'close');
    if (this.#tooManyDenied()) {
      close();
      this.#log(request, { status: 429, reason: 'too many requests without a key' });
      openAi.refuse(
        response,
        new OpenAiError(429, 'too many requests without a key', { code: 'rate_limit_exceeded' }),
      );
      return;
    }
    if (!openAi.key.isEnabled || !openAi.key.admits(request.headers.authorization)) {
      close();
      this.#denied.count++;
      this.#log(request, { status: 401, reason: openAi.key.isEnabled ? 'wrong key' : 'the endpoint is off' });
      openAi.refuse(
        response,
        openAi.key.isEnabled
          ? new OpenAiError(401, 'Incorrect API key provided', { code: 'invalid_api_key' })
          : new OpenAiError(404, 'this endpoint is off; caravan serve --openai opens it', {
              code: 'unknown_url',
            }),
      );
      return;
    }
    await openAi.answer(request, response, path);
  }

  /** A request without token or cookie: a launch token on `/` opens a session, everything else is told how to get one. */
  #admit(request: IncomingMessage, response: ServerResponse, pathname: string, token: string | null): void {
    if (this.#tooManyDenied()) {
      this.#refuse(request, response, { status: 429, reason: 'too many requests without a session' });
      return;
    }
    const isRoot = request.method === 'GET' && pathname === '/';
    if (isRoot && token !== null) {
      const session = this.#options.access.openSession(token);
      if (session !== null) {
        const secure = request.headers['x-forwarded-proto'] === 'https';
        response.writeHead(303, {
          ...securityHeaders,
          Location: '/',
          'Set-Cookie': this.#options.access.setCookie(session, this.#port, secure),
          'Cache-Control': 'no-store',
        });
        response.end();
        return;
      }
    }
    const site = request.headers['sec-fetch-site'];
    if (
      isRoot &&
      token === null &&
      isNavigation(request.headers) &&
      site !== 'same-origin' &&
      site !== 'none'
    ) {
      // A link on another site leads here: the browser held the Strict cookie back. This page's own reload sends it.
      sendPage(
        response,
        200,
        '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Caravan</title>',
      );
      return;
    }
    this.#denied.count++;
    this.#log(request, { status: 401, reason: 'no session' });
    sendPage(
      response,
      401,
      '<!doctype html><meta charset="utf-8"><title>Caravan</title><h1>This address has been used or has expired</h1>' +
        '<p>Run <code>caravan serve</code> where Caravan runs: it prints a new one.</p>',
    );
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const { method = '', url = '', headers, rawHeaders } = request;
    let refusal = checkSource({ method, url, headers, rawHeaders }, this.#names, true);
    if (!refusal && !this.#options.access.admits(headers, this.#port)) {
      refusal = this.#tooManyDenied()
        ? { status: 429, reason: 'too many requests without a session' }
        : { status: 401, reason: 'upgrade without session' };
      this.#denied.count++;
    }
    // A session's cookie alone is not enough: every site's page may open a WebSocket, and only Origin tells which did.
    if (!refusal && url.split('?', 1)[0] !== webSocketPath)
      refusal = { status: 404, reason: 'no such socket' };
    if (refusal) {
      this.#log(request, refusal);
      refuseSocket(socket, refusal.status);
      return;
    }
    if (this.#sockets.clients.size >= maxWebSockets) {
      this.#log(request, { status: 429, reason: 'too many WebSockets' });
      refuseSocket(socket, 429);
      return;
    }
    this.#sockets.handleUpgrade(request, socket, head, (webSocket: WebSocket) => {
      this.#options.attach(
        webSocketCarrier(webSocket, { maxSendBytes: maxAnswerBytes, ping: true, maxMessagesPerSecond }),
      );
    });
  }

  #refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
    this.#log(request, refusal);
    // The body of a refused request is not read; the connection could not be used again.
    const body = `${STATUS_CODES[refusal.status]}\n`;
    response.writeHead(refusal.status, {
      ...securityHeaders,
      'Content-Type': 'text/plain',
      'Content-Length': body.length,
      Connection: 'close',
    });
    response.end(body);
  }

  /** Never the query, which may hold a token. A flood of refusals must not fill the disk. */
  #log(request: IncomingMessage, { status, reason }: Refusal): void {
    this.#tooManyDenied();
    if (this.#denied.logged++ > 30) return;
    const path = (request.url ?? '').split('?', 1)[0]!.slice(0, 200);
    this.#options.log(`page server: ${status} ${request.method} ${path} (${reason})`);
  }

  #tooManyDenied(): boolean {
    const minute = Math.floor(performance.now() / 60_000);
    if (this.#denied.minute !== minute) this.#denied = { minute, count: 0, logged: 0 };
    return this.#denied.count > maxDeniedPerMinute;
  }
}

function sendPage(response: ServerResponse, status: number, html: string): void {
  response.writeHead(status, {
    ...securityHeaders,
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Length': Buffer.byteLength(html),
    'Cache-Control': 'no-store',
    Connection: 'close',
  });
  response.end(html);
}

function refuseSocket(socket: Duplex, status: number): void {
  const headers = Object.entries({ ...securityHeaders, Connection: 'close', 'Content-Length': '0' });
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
    () => socket.destroy(),
  );
}

/** Listens on one port, for 127.0.0.1 on ::1 too, where there is such a thing. */
async function listen(
  { host, port }: PageServerOptions,
  create: () => Server,
): Promise<{ servers: Server[]; port: number }> {
  const candidates =
    port === undefined ? Array.from({ length: portsToTry }, (_, offset) => defaultPort + offset) : [port];
  for (const candidate of candidates) {
    const servers: Server[] = [];
    try {
      const first = create();
      await listenOn(first, host, candidate);
      servers.push(first);
      const taken = (first.address() as AddressInfo).port;
      if (host === '127.0.0.1') {
        const second = create();
        try {
          await listenOn(second, '::1', taken);
          servers.push(second);
        } catch (error) {
          if (!isWithoutIpv6(error)) throw error;
        }
      }
      return { servers, port: taken };
    } catch (error) {
      for (const server of servers) server.close();
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === 'EADDRINUSE') continue;
      throw new CaravanError('bad_option', `cannot listen on ${host}:${candidate}: ${message}`, {
        place: { field: code === 'EACCES' ? 'port' : 'host' },
        mend:
          code === 'EACCES'
            ? "Ports below 1024 are the administrator's; take a higher one."
            : 'Give an address of this machine, or leave --host out.',
      });
    }
  }
  throw new CaravanError(
    'bad_option',
    port === undefined
      ? `the ports ${defaultPort} to ${defaultPort + portsToTry - 1} are all in use`
      : `port ${port} is in use`,
    { place: { field: 'port' }, mend: 'Choose another with --port.' },
  );
}

function listenOn(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, ipv6Only: host.includes(':') && !isUnspecified(host) }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function isWithoutIpv6(error: unknown): boolean {
  return ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '');
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function isUnspecified(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

/** The names under which a listening server is rightly addressed. */
function namesOf(host: string): string[] {
  if (isLoopback(host)) return [...new Set([host, '127.0.0.1', '::1', 'localhost'])];
  if (!isUnspecified(host)) return [host];
  const own = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
  return [
    'localhost',
    hostname().toLowerCase(),
    // A link-local IPv6 address has a zone, which no Host header carries.
    ...own.filter((entry) => !entry.scopeid).map((entry) => entry.address),
  ];
}
