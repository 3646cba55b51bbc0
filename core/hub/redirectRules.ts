/** Where a download may be sent to. Pure. */
import { CaravanError } from '../shared/contract/errors.ts';
import { defaultEndpoint } from '../shared/hub/hubReference.ts';

/** Where the public hub keeps the bytes of large files. */
const hubDomains = ['huggingface.co', 'hf.co'];

/**
 * The address of a hub as it is used: no path's end, no query, no name and password.
 * @throws `bad_option` where it is none
 */
export function parseEndpoint(text: string | undefined): URL {
  const given = text === undefined || text.trim() === '' ? defaultEndpoint : text.trim();
  let url: URL | null = null;
  try {
    url = new URL(given);
  } catch {
    // Told below.
  }
  const usable =
    url !== null &&
    /^https?:$/.test(url.protocol) &&
    url.username === '' &&
    url.password === '' &&
    url.search === '' &&
    url.hash === '';
  if (!url || !usable)
    throw new CaravanError('bad_option', `HF_ENDPOINT is no address of a hub: '${given.slice(0, 200)}'`, {
      place: { field: 'HF_ENDPOINT' },
      mend: `Give one such as ${defaultEndpoint}, without name, password or query.`,
    });
  return url;
}

/**
 * Whether a request that began at `endpoint` may go on to `target`: to the endpoint itself, by https to where the public
 * hub keeps its files, and from a hub on this machine to this machine.
 */
export function mayGoTo(endpoint: URL, target: URL): boolean {
  if (target.username !== '' || target.password !== '') return false;
  if (target.origin === endpoint.origin) return true;
  if (isLoopbackUrl(endpoint) && isLoopbackUrl(target)) return /^https?:$/.test(target.protocol);
  if (target.protocol !== 'https:') return false;
  const host = target.hostname;
  return (
    hubDomains.some((domain) => host === domain || host.endsWith(`.${domain}`)) || host === endpoint.hostname
  );
}

export function isLoopbackUrl({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname);
}
