/**
 * Entry of the hub process: what comes from the network is read here, away from the host's database and keys. It loads
 * nothing native, answers requests, and ends with its host.
 */
import { setGlobalProxyFromEnv } from 'node:http';
import { connectToParent } from '../process/parentLink.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { downloadFiles } from './downloadFiles.ts';
import { planDownload } from './planDownload.ts';
import {
  requests,
  toHubSchema,
  type FromHub,
  type RequestName,
  type RequestParams,
  type RequestResult,
} from './protocol.ts';

type Handler<N extends RequestName> = (
  params: RequestParams<N>,
  report: (done: number, total: number) => void,
  signal: AbortSignal,
) => Promise<RequestResult<N>>;

// HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
setGlobalProxyFromEnv();

/** Two jobs may want the same files: the second finds them there. */
const inFolder = new Map<string, Promise<unknown>>();

const handlers: { [N in RequestName]: Handler<N> } = {
  plan: ({ kind, reference, endpoint, token, root }, _report, signal) =>
    planDownload({ kind, reference, endpoint, token, root }, signal),
  async download({ plan, token }, report, signal) {
    const { dir } = plan;
    const before = inFolder.get(dir) ?? Promise.resolve();
    const own = before.catch(() => undefined).then(() => downloadFiles(plan, token, { signal, report }));
    inFolder.set(dir, own);
    try {
      await own;
    } finally {
      if (inFolder.get(dir) === own) inFolder.delete(dir);
    }
    return {};
  },
};

const running = new Map<number, AbortController>();
const link = connectToParent({ type: 'beat' } satisfies FromHub);
const send = (message: FromHub) => void link.send(message);
const tellEveryMs = 100;

async function handle(id: number, name: string, raw: unknown): Promise<void> {
  const abort = new AbortController();
  running.set(id, abort);
  try {
    if (!Object.hasOwn(requests, name)) throw new CaravanError('internal', `unknown request ${name}`);
    const request = name as RequestName;
    const params = requests[request].params.parse(raw);
    let last = 0;
    const report = (done: number, total: number) => {
      const now = Date.now();
      if (now - last < tellEveryMs && done !== total) return;
      last = now;
      send({ type: 'progress', id, done, total });
    };
    const result = await (handlers[request] as Handler<never>)(params as never, report, abort.signal);
    send({ type: 'result', id, result });
  } catch (error) {
    send({ type: 'error', id, error: CaravanError.from(error).toData() });
  } finally {
    running.delete(id);
  }
}

link.onMessage((raw) => {
  const message = toHubSchema.safeParse(raw);
  if (!message.success) return;
  if (message.data.type === 'cancel') running.get(message.data.id)?.abort();
  else void handle(message.data.id, message.data.name, message.data.params);
});
link.onGone(() => process.exit(0));
