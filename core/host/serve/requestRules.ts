/**
 * The rules that every request and every upgrade passes, in this order: Host (against DNS rebinding), then Origin and
 * Sec-Fetch-Site (against pages of other sites), then the token or its cookie (serve/Access.ts). Pure, so that each can be
 * tested alone.
 */
import type { IncomingHttpHeaders } from 'node:http';

/** What this server may be called, as URL hosts: `127.0.0.1:7717`. */
export interface AllowedNames {
  hosts: ReadonlySet<string>;
  /** `http://` and `https://` before each of them: a reverse proxy may speak TLS. */
  origins: ReadonlySet<string>;
}

export interface Refusal {
  status: 400 | 401 | 403 | 404 | 405 | 429;
  /** For the host's log; the client is told nothing but the status. */
  reason: string;
}

/**
 * @param addresses names and addresses under which the server listens, without port; IPv6 without brackets
 * @param extra further names (`--allowed-host`): with a port exactly that, without one any usual way to spell it
 */
export function allowedNames(addresses: string[], port: number, extra: string[]): AllowedNames {
  const hosts = new Set<string>();
  for (const address of addresses) hosts.add(normalHost(`${bracketed(address)}:${port}`)!);
  for (const entry of extra) {
    const host = normalHost(bracketed(entry));
    if (host === null) continue;
    hosts.add(host);
    if (!/:\d+$/.test(host)) hosts.add(normalHost(`${host}:${port}`)!);
  }
  const origins = new Set([...hosts].flatMap((host) => [`http://${host}`, `https://${host}`]));
  return { hosts, origins };
}

/** An IPv6 address as URLs have it; every other name as it is. */
export function bracketed(address: string): string {
  return /^[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*$/i.test(address) ? `[${address}]` : address;
}

/** A Host header as a URL's host, lower-case and without port 80; null unless it is a host and nothing else. */
export function normalHost(header: string): string | null {
  let url: URL;
  try {
    url = new URL(`http://${header}`);
  } catch {
    return null;
  }
  const bare =
    url.username === '' &&
    url.password === '' &&
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === '';
  // Of the many spellings that a URL parser lets pass (tabs, a closing slash, 0x7f.1) only the usual one is taken.
  return bare && /^[a-z0-9.\-_:[\]]+$/i.test(header) && header.toLowerCase().replace(/:80$/, '') === url.host
    ? url.host
    : null;
}

/** Rules 2 and 3. @param isUpgrade a WebSocket handshake; `hasBearer` whether it carries an Authorization header */
export function checkSource(
  request: { method: string; url: string; headers: IncomingHttpHeaders; rawHeaders: string[] },
  names: AllowedNames,
  isUpgrade: boolean,
): Refusal | null {
  const { method, url, headers, rawHeaders } = request;
  const hostHeaders = rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host');
  if (hostHeaders.length !== 1) return { status: 400, reason: `${hostHeaders.length} Host headers` };
  const host = normalHost(headers.host ?? '');
  if (host === null || !names.hosts.has(host)) return { status: 403, reason: 'Host is not allowed' };

  if (!url.startsWith('/')) return { status: 400, reason: 'request target is not a path' };
  const site = headers['sec-fetch-site'];
  const isOpening = method === 'GET' && !isUpgrade && url.split('?', 1)[0] === '/' && isNavigation(headers);
  if (site !== undefined && site !== 'same-origin' && site !== 'none' && !isOpening)
    return { status: 403, reason: `Sec-Fetch-Site is ${String(site)}` };
  const origin = headers.origin;
  // A navigation from another site may carry that site's Origin; it is let in to '/' and no further.
  if (origin !== undefined && !names.origins.has(origin) && !isOpening)
    return { status: 403, reason: 'Origin is not allowed' };
  if (isUpgrade && origin === undefined && headers.authorization === undefined)
    return { status: 403, reason: 'upgrade without Origin and without bearer token' };
  return null;
}

/** A person following a link in a tab of their own: not a frame, not a script. */
export function isNavigation(headers: IncomingHttpHeaders): boolean {
  return headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
}
