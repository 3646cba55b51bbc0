/**
 * A model hub on this machine: the endpoints that Caravan asks of a real one (information, a list of files in pages,
 * resolve with ranges and redirects), with the ways in which a hub can fail or lie.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubRepository {
  kind: 'model' | 'dataset';
  id: string;
  files: Record<string, Buffer | string>;
  /** Branches and tags beside `main`. */
  revisions?: string[];
  /** Lets in holders of this token alone, and says that the owner wants terms accepted. */
  gatedFor?: string;
}

/** How the hub misbehaves; all of it can be changed while it runs. */
export interface HubFaults {
  /** Cuts the connection after so many bytes of a file's answer, this many times. */
  cut?: { after: number; times: number };
  /** Milliseconds between pieces of 16 KiB. */
  slowMs?: number;
  /** Answers 503 to so many requests. */
  busy?: number;
  /** Sends another byte than it has. */
  corrupt?: boolean;
  /** What it lists as every file's size. */
  listedSize?: (path: string, size: number) => number;
  /** Lists these too. */
  extraPaths?: string[];
  /** Sends downloads of large files there instead of to its own store. */
  redirectTo?: string;
  /** Continues its list of files there. */
  nextPageAt?: string;
  /** Answers ranges with the whole file. */
  ignoreRange?: boolean;
}

export interface LoopbackHub {
  readonly url: string;
  /** Of every request: method, path with query, and the headers that matter. */
  readonly requests: { path: string; range: string | undefined; authorization: string | undefined }[];
  faults: HubFaults;
  add(repository: HubRepository): { commit: string };
  close(): Promise<void>;
}

/** As hubs do: small text in git itself, larger files in a store beside it. */
const largeBytes = 4096;
const pageSize = 3;

export async function openLoopbackHub(): Promise<LoopbackHub> {
  const repositories = new Map<string, HubRepository & { commit: string }>();
  const requests: LoopbackHub['requests'] = [];
  const server = createServer((request, response) => {
    void answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url!, url);
    const { range, authorization } = request.headers;
    requests.push({ path: request.url!, range, authorization });
    const { faults } = hub;
    if (faults.busy !== undefined && faults.busy > 0) {
      faults.busy--;
      response.writeHead(503).end();
      return;
    }
    const store = /^\/store\/(model|dataset)\/([^/]+\/[^/]+)\/(.+)$/.exec(pathname);
    if (store) {
      const repository = repositories.get(`${store[1]} ${store[2]}`)!;
      await sendFile(
        request,
        response,
        Buffer.from(repository.files[decodeURIComponent(store[3]!)]!),
        faults,
      );
      return;
    }
    const api = /^\/api\/(model|dataset)s\/([^/]+\/[^/]+)\/(revision|tree)\/([^/?]+)$/.exec(pathname);
    const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(pathname);
    const kind = api ? api[1]! : file?.[1] ? 'dataset' : 'model';
    const repository = repositories.get(`${kind} ${api?.[2] ?? file?.[2]}`);
    if (!repository) return refuse(response, 401, 'RepoNotFound', 'Invalid username or password.');
    const revision = decodeURIComponent(api?.[4] ?? file?.[3] ?? '');
    const known = ['main', 'HEAD', repository.commit, ...(repository.revisions ?? [])];
    if (!known.includes(revision)) return refuse(response, 404, 'RevisionNotFound', 'Invalid rev id');
    if (api?.[3] === 'revision')
      return sendJson(response, {
        _id: 'x',
        id: repository.id,
        sha: repository.commit,
        gated: repository.gatedFor === undefined ? false : 'manual',
        private: false,
        downloads: 0,
        likes: 0,
        lastModified: '2026-01-01T00:00:00.000Z',
      });
    if (api) return sendTree(response, repository, pathname, Number(searchParams.get('cursor') ?? 0), faults);
    if (repository.gatedFor !== undefined && authorization !== `Bearer ${repository.gatedFor}`)
      return refuse(
        response,
        authorization === undefined ? 401 : 403,
        'GatedRepo',
        `Access to model ${repository.id} is restricted.`,
      );
    const path = decodeURIComponent(file![4]!);
    const content = repository.files[path];
    if (content === undefined) return refuse(response, 404, 'EntryNotFound', 'Entry not found');
    const bytes = Buffer.from(content);
    if (bytes.length >= largeBytes || faults.redirectTo !== undefined) {
      const location = faults.redirectTo ?? `${url}/store/${kind}/${repository.id}/${file![4]}`;
      response.writeHead(302, { location, 'x-repo-commit': repository.commit }).end();
      return;
    }
    await sendFile(request, response, bytes, faults);
  }

  function sendTree(
    response: ServerResponse,
    { files }: HubRepository,
    pathname: string,
    cursor: number,
    faults: HubFaults,
  ): void {
    const listed = [
      ...Object.entries(files).map(([path, content]) => ({ path, bytes: Buffer.from(content) })),
      ...(faults.extraPaths ?? []).map((path) => ({ path, bytes: Buffer.from('x') })),
    ];
    const folders = new Set(
      Object.keys(files).flatMap((path) =>
        path.includes('/') ? [path.slice(0, path.lastIndexOf('/'))] : [],
      ),
    );
    const entries = [
      ...[...folders].map((path) => ({ type: 'directory', path, size: 0, oid: '0'.repeat(40) })),
      ...listed.map(({ path, bytes }) => {
        const size = faults.listedSize?.(path, bytes.length) ?? bytes.length;
        const oid = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
        return bytes.length >= largeBytes
          ? {
              type: 'file',
              path,
              size,
              oid,
              lfs: { oid: createHash('sha256').update(bytes).digest('hex'), size, pointerSize: 130 },
            }
          : { type: 'file', path, size, oid };
      }),
    ];
    const next = cursor + pageSize;
    const at = faults.nextPageAt ?? url;
    sendJson(
      response,
      entries.slice(cursor, next),
      next < entries.length
        ? { link: `<${at}${pathname}?recursive=true&expand=false&cursor=${next}>; rel="next"` }
        : {},
    );
  }

  const hub: LoopbackHub = {
    url,
    requests,
    faults: {},
    add(repository) {
      const names = Object.entries(repository.files).map(
        ([path, content]) => `${path}\0${content.toString()}`,
      );
      const commit = createHash('sha1').update(names.join('\0')).digest('hex');
      repositories.set(`${repository.kind} ${repository.id}`, { ...repository, commit });
      return { commit };
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return hub;
}

async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  whole: Buffer,
  faults: HubFaults,
): Promise<void> {
  const from = faults.ignoreRange ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const isPart = request.headers.range !== undefined && !faults.ignoreRange;
  const bytes = Buffer.from(whole.subarray(from));
  if (faults.corrupt && bytes.length > 0) bytes[bytes.length - 1]! ^= 1;
  response.writeHead(isPart ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': bytes.length,
    ...(isPart && { 'content-range': `bytes ${from}-${whole.length - 1}/${whole.length}` }),
  });
  if (faults.cut && faults.cut.times > 0 && bytes.length > faults.cut.after) {
    faults.cut.times--;
    response.write(bytes.subarray(0, faults.cut.after), () => setTimeout(() => response.destroy(), 10));
    return;
  }
  if (faults.slowMs === undefined) {
    response.end(bytes);
    return;
  }
  for (let at = 0; at < bytes.length && !response.destroyed; at += 16384) {
    response.write(bytes.subarray(at, at + 16384));
    await new Promise((resolve) => setTimeout(resolve, faults.slowMs));
  }
  response.end();
}

function sendJson(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string, error: string): void {
  response
    .writeHead(status, { 'content-type': 'application/json', 'x-error-code': code })
    .end(JSON.stringify({ error }));
}
