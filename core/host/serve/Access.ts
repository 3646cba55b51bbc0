/**
 * Who may speak to the page's server: holders of the token (32 random bytes, kept in a file that its owner alone may read,
 * for programs), and browsers that traded a launch token, which works once, for a session's cookie. Sessions live in this
 * process; a new token ends them all.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../shared/clock.ts';
import { wallClock } from '../../shared/clock.ts';

const tokenBytes = 32;
const sessionSeconds = 7 * 24 * 3600;
/** Launch tokens that were printed and not used; the oldest goes when there are more. */
const maxLaunchTokens = 16;
const maxSessions = 256;

export class Access {
  readonly #tokenFile: string;
  readonly #clock: Clock;
  #tokenHash: Buffer;
  /** Hashes of tokens, so that what the process holds opens nothing. */
  readonly #launchHashes: Buffer[] = [];
  /** Hash of a session's cookie -> when it ends (ms since 1970). */
  readonly #sessions = new Map<string, number>();

  constructor(tokenFile: string, clock: Clock = wallClock) {
    this.#tokenFile = tokenFile;
    this.#clock = clock;
    const kept = readToken(tokenFile);
    this.#tokenHash = hash(kept ?? writeToken(tokenFile));
  }

  /** A new token for programs; the old one, every session and every launch token end. */
  rotate(): void {
    this.#tokenHash = hash(writeToken(this.#tokenFile));
    this.endSessions();
  }

  endSessions(): void {
    this.#sessions.clear();
    this.#launchHashes.length = 0;
  }

  /** A token for one URL, which opens one session. */
  createLaunchToken(): string {
    const token = randomBytes(tokenBytes).toString('base64url');
    this.#launchHashes.push(hash(token));
    if (this.#launchHashes.length > maxLaunchTokens) this.#launchHashes.shift();
    return token;
  }

  /** @returns the cookie's value, or null where the token is unknown or used */
  openSession(launchToken: string): string | null {
    const given = hash(launchToken);
    const index = this.#launchHashes.findIndex((known) => timingSafeEqual(known, given));
    if (index < 0) return null;
    this.#launchHashes.splice(index, 1);
    const session = randomBytes(tokenBytes).toString('base64url');
    const now = this.#clock.now();
    for (const [key, endsAt] of this.#sessions) if (endsAt <= now) this.#sessions.delete(key);
    if (this.#sessions.size >= maxSessions) this.#sessions.delete(this.#sessions.keys().next().value!);
    this.#sessions.set(hash(session).toString('hex'), now + sessionSeconds * 1000);
    return session;
  }

  /** Rule 4: whether a request's Authorization or Cookie header opens the server on this port. */
  admits(
    headers: { authorization?: string | undefined; cookie?: string | undefined },
    port: number,
  ): boolean {
    const bearer = /^Bearer ([A-Za-z0-9_-]+)$/i.exec(headers.authorization ?? '')?.[1];
    if (bearer !== undefined && timingSafeEqual(hash(bearer), this.#tokenHash)) return true;
    const session = cookieValue(headers.cookie, cookieName(port));
    if (session === null) return false;
    // Looked up by hash: how long that takes tells nothing about the cookies that exist.
    const endsAt = this.#sessions.get(hash(session).toString('hex'));
    return endsAt !== undefined && endsAt > this.#clock.now();
  }

  /** @param secure whether the browser came by TLS, through a proxy */
  setCookie(session: string, port: number, secure: boolean): string {
    return (
      `${cookieName(port)}=${session}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${sessionSeconds}` +
      (secure ? '; Secure' : '')
    );
  }
}

/** Cookies ignore ports: two servers of one machine would overwrite each other's. */
export function cookieName(port: number): string {
  return `caravan_${port}`;
}

function cookieValue(header: string | undefined, name: string): string | null {
  for (const part of (header ?? '').split(';')) {
    const equals = part.indexOf('=');
    if (equals > 0 && part.slice(0, equals).trim() === name) return part.slice(equals + 1).trim();
  }
  return null;
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A token file that others could read is none. */
function readToken(file: string): string | null {
  try {
    if (process.platform !== 'win32' && (statSync(file).mode & 0o077) !== 0) return null;
    const token = readFileSync(file, 'utf8').trim();
    return Buffer.from(token, 'base64url').length === tokenBytes ? token : null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function writeToken(file: string): string {
  const token = randomBytes(tokenBytes).toString('base64url');
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`;
  const descriptor = openSync(partial, 'wx', 0o600);
  try {
    writeSync(descriptor, `${token}\n`);
  } finally {
    closeSync(descriptor);
  }
  renameSync(partial, file);
  return token;
}
