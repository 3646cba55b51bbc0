/**
 * Requests to a hub, as `@huggingface/hub` wants a `fetch`: only to the hub's own address, with the token sent there and
 * nowhere else, answers of bounded size, and every refusal in our words.
 */
import { CaravanError } from '../shared/contract/errors.ts';
import type { HubKind } from '../shared/hub/hubReference.ts';
import { mayGoTo, parseEndpoint } from './redirectRules.ts';

export interface HubSession {
  readonly endpoint: URL;
  /** Without a slash at its end. */
  readonly base: string;
  /** For `@huggingface/hub`: answers that are errors throw. */
  readonly fetch: typeof fetch;
  /** One request, its redirects followed by our rules. The answer is a 200, a 206 or a 416. */
  open(url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Response>;
}

export interface HubSessionOptions {
  kind: HubKind;
  id: string;
  revision: string;
  endpoint: string | undefined;
  token: string | undefined;
  signal: AbortSignal;
  /** Longest that a server may be silent. */
  stallMs: number;
}

/** A list of a hundred thousand files has some 30 MB. */
const maxAnswerBytes = 64 * 2 ** 20;
const maxRedirects = 5;
const userAgent = 'caravan';

export const tokenMend =
  'caravan hub token, or HF_TOKEN in the environment of the command that starts the host';

export function openHubSession(options: HubSessionOptions): HubSession {
  const { token, stallMs } = options;
  const endpoint = parseEndpoint(options.endpoint);
  if (/^(1|true|yes|on)$/i.test(process.env['HF_HUB_OFFLINE'] ?? ''))
    throw new CaravanError('network_unavailable', 'HF_HUB_OFFLINE is set: nothing is asked of a hub', {
      mend: 'Unset it and start the host again, or name a commit that is here already.',
    });
  // What a header cannot carry must not become part of one, nor of a message.
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw new CaravanError(
      'bad_option',
      'the token of the hub holds a blank or a character that no token has',
      {
        mend: `Set it again: ${tokenMend}.`,
      },
    );
  const base = endpoint.href.replace(/\/+$/, '');

  async function request(url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Response> {
    const isHome = url.origin === endpoint.origin;
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(), stallMs);
    try {
      return await fetch(url, {
        redirect: 'manual',
        headers: {
          'user-agent': userAgent,
          // Bytes are counted and hashed as they are stored.
          'accept-encoding': 'identity',
          ...headers,
          ...(isHome && token !== undefined && { authorization: `Bearer ${token}` }),
        },
        signal: AbortSignal.any([signal, silence.signal]),
      });
    } catch (error) {
      if (signal.aborted) throw new CaravanError('cancelled', 'the download was cancelled');
      throw unreachable(
        url,
        silence.signal.aborted ? `it was silent for ${Math.round(stallMs / 1000)} s` : error,
      );
    } finally {
      clearTimeout(timer);
    }
  }

  async function open(first: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Response> {
    let url = first;
    for (let hops = 0; hops <= maxRedirects; hops++) {
      const response = await request(url, headers, signal);
      const { status } = response;
      if (status === 200 || status === 206 || status === 416) return response;
      if (![301, 302, 303, 307, 308].includes(status)) throw await refusal(response, options, base);
      const location = response.headers.get('location');
      await response.body?.cancel();
      const target = location === null ? null : URL.parse(location, url.href);
      if (!target || !mayGoTo(endpoint, target))
        throw new CaravanError(
          'bad_file',
          `${url.host} sends the download of ${options.id} on to ${target ? `${target.protocol}//${target.host}` : 'nowhere'}, which is no place of this hub`,
          { mend: 'Nothing was taken from there. Check HF_ENDPOINT.' },
        );
      url = target;
    }
    throw new CaravanError('bad_file', `${first.host} sends the download of ${options.id} round in circles`, {
      mend: 'Try again later, or check HF_ENDPOINT.',
    });
  }

  return {
    endpoint,
    base,
    open,
    async fetch(input) {
      const url = new URL(input instanceof Request ? input.url : String(input));
      // The next page's address comes from the answer before it.
      if (url.origin !== endpoint.origin)
        throw new CaravanError('bad_file', `${endpoint.host} continues its list of files at ${url.host}`, {
          mend: 'Nothing was downloaded. Check HF_ENDPOINT.',
        });
      const response = await open(url, { accept: 'application/json' }, options.signal);
      const text = await readBounded(response, stallMs);
      return new Response(text, { status: response.status, headers: linkOf(response) });
    },
  };
}

function linkOf(response: Response): Record<string, string> {
  const link = response.headers.get('link');
  return { 'content-type': 'application/json', ...(link !== null && { link }) };
}

async function readBounded(response: Response, stallMs: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of piecesOf(response, stallMs)) {
    size += piece.byteLength;
    if (size > maxAnswerBytes)
      throw new CaravanError('bad_file', `the hub's answer is longer than ${maxAnswerBytes / 2 ** 20} MiB`, {
        mend: 'Choose another repository, or check HF_ENDPOINT.',
      });
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

/** A body's bytes as they come. @throws `network_unavailable` where it ends early or falls silent */
export async function* piecesOf(response: Response, stallMs: number): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      let timer: NodeJS.Timeout | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`silent for ${Math.round(stallMs / 1000)} s`)), stallMs);
      });
      const next = await Promise.race([reader.read(), silence])
        .catch((error: unknown) => {
          throw unreachable(new URL(response.url), error);
        })
        .finally(() => clearTimeout(timer));
      if (next.done) return;
      yield next.value;
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function unreachable(url: URL, why: unknown): CaravanError {
  const cause = why instanceof Error ? (why.cause ?? why) : why;
  const { code, message } =
    cause instanceof Error ? (cause as NodeJS.ErrnoException) : { code: undefined, message: String(cause) };
  return new CaravanError('network_unavailable', `${url.host} cannot be reached: ${code ?? message}`, {
    mend: 'Check the network (HTTPS_PROXY, HF_ENDPOINT) and start it again: what was downloaded is kept, and it goes on from there.',
  });
}

/** What an answer that is none means. Never repeats what a server wrote: it could be anything. */
async function refusal(response: Response, options: HubSessionOptions, base: string): Promise<CaravanError> {
  const { kind, id, revision, token } = options;
  const { status, headers } = response;
  const code = headers.get('x-error-code') ?? '';
  const words = (await readBounded(response, options.stallMs).catch(() => '')).slice(0, 20_000);
  const page = `${base}/${kind === 'dataset' ? 'datasets/' : ''}${id}`;
  if (code === 'GatedRepo' || ((status === 401 || status === 403) && /gated|restricted/i.test(words)))
    return new CaravanError('unauthorized', `${id} is gated: its owner lets in only who accepted the terms`, {
      mend:
        token === undefined
          ? `Accept the terms at ${page}, then set a token with ${tokenMend}.`
          : `Accept the terms at ${page} with the account of your token, and give the token the right to read gated repositories.`,
    });
  if (code === 'RevisionNotFound')
    return new CaravanError('not_found', `${id} has no revision '${revision}'`, {
      mend: `See its branches, tags and commits at ${page}/tree/main.`,
    });
  if (status === 404 || code === 'RepoNotFound' || (status === 401 && token === undefined))
    return new CaravanError('not_found', `there is no ${kind} '${id}' at ${base}, or it is private`, {
      mend: `Check its name; for a private one set a token with ${tokenMend}.`,
    });
  if (status === 401 || status === 403)
    return new CaravanError('unauthorized', `${base} does not let this token read ${id}`, {
      mend: `Set another one: ${tokenMend}.`,
    });
  return new CaravanError('network_unavailable', `${base} answers with status ${status}`, {
    mend: 'Try again later: what was downloaded is kept, and it goes on from there.',
  });
}
