import { rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, sep } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import { parseHubReference, type HubAccess, type HubKind } from '../../shared/hub/hubReference.ts';
import type { Hub, HubDeps, HubService } from './hubTypes.ts';
import { findToken, keepToken, normalEndpoint } from './hubToken.ts';

/** Models and datasets of a hub, as files on this machine. What it speaks to the network is said by its own process. */
export function createHubService({
  home,
  process: hubProcess,
  env = process.env,
  userHome = homedir(),
}: HubDeps): HubService {
  const root = join(home, 'hub');
  const places = { env, userHome, file: join(home, 'host', 'hub-token') };
  const ownEndpoint = () => normalEndpoint(env['HF_ENDPOINT']);

  async function ask(kind: HubKind, reference: string, access: HubAccess | undefined) {
    const endpoint = access?.endpoint === undefined ? ownEndpoint() : normalEndpoint(access.endpoint);
    const token = access?.token ?? (await findToken(endpoint, places))?.token;
    return {
      kind,
      reference: parseHubReference(reference),
      endpoint,
      root,
      ...(token !== undefined && { token }),
    };
  }

  const hub: Hub = {
    async fetch({ kind, reference, access }, { signal, progress, log }, gate) {
      const request = await ask(kind, reference, access);
      const plan = await hubProcess.request('plan', request, { signal });
      const { origin, files, bytes, presentBytes, leftOut } = plan;
      log(`${origin.id}@${origin.revision} is commit ${origin.commit} at ${origin.endpoint}`);
      log(
        `${files.length} ${files.length === 1 ? 'file' : 'files'}, ${formatBytes(bytes)}` +
          (presentBytes > 0 ? `, of which ${formatBytes(presentBytes)} are here` : ''),
      );
      for (const line of leftOut) log(line);
      const { token } = request;
      for (;;) {
        await Promise.race([gate?.opened(), aborted(signal)]);
        const paused = gate?.untilPause;
        try {
          await hubProcess.request(
            'download',
            { plan, ...(token !== undefined && { token }) },
            {
              signal: paused ? AbortSignal.any([signal, paused]) : signal,
              onProgress: (done, total) => progress({ done, total, unit: 'bytes', stage: 'downloading' }),
            },
          );
          break;
        } catch (error) {
          if (signal.aborted || !paused?.aborted) throw error;
        }
      }
      return {
        plan,
        files: files.map(({ path }) => join(plan.dir, path)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
      };
    },
    async forget(path) {
      if (path.startsWith(root + sep)) await rm(path, { recursive: true, force: true });
    },
  };

  return {
    hub,
    handlers: {
      async hubStatus() {
        const endpoint = ownEndpoint();
        return { endpoint, token: (await findToken(endpoint, places))?.from ?? null };
      },
      async setHubToken({ token }) {
        const trimmed = token?.trim() ?? null;
        if (trimmed !== null && !/^[\x21-\x7e]+$/.test(trimmed))
          throw new CaravanError('bad_option', 'a token has no blanks and no characters beyond ASCII', {
            place: { field: 'token' },
            mend: 'Copy it again from the page of access tokens.',
          });
        await keepToken(places.file, ownEndpoint(), trimmed);
        return {};
      },
      async inspectHub({ kind, reference, access }) {
        return hubProcess.request('plan', await ask(kind, reference, access));
      },
    },
    close: () => Promise.resolve(),
  };
}

/** Never resolves; rejects when a job is cancelled while it is paused. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    const fail = () => reject(new CaravanError('cancelled', 'the download was cancelled: what came is kept'));
    if (signal.aborted) fail();
    else signal.addEventListener('abort', fail, { once: true });
  });
}
