/** The page's server as the network sees it: raw requests, since a well-behaved client cannot send most of these. */
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { maxCallBytes, type BufferedCarrier } from '../carriers/BufferedCarrier.ts';
import { OpenAiEndpoint } from '../openai/OpenAiEndpoint.ts';
import { fakeHandlers } from '../../../tests/support/fakeServices.ts';
import { Access } from './Access.ts';
import { openPageServer, type PageServer } from './PageServer.ts';
import { securityHeaders } from './securityHeaders.ts';

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function open(options: { host?: string; port?: number; allowedHosts?: string[] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'page-'));
  const pageDir = join(folder, 'page');
  mkdirSync(join(pageDir, 'assets'), { recursive: true });
  writeFileSync(join(pageDir, 'index.html'), 'the page');
  writeFileSync(join(pageDir, 'assets', 'app-1a2b.js'), 'the script');
  writeFileSync(join(pageDir, 'secret.key'), 'not of the page');
  writeFileSync(join(folder, 'outside.txt'), 'outside');
  symlinkSync(join(folder, 'outside.txt'), join(pageDir, 'link.txt'));
  const tokenFile = join(folder, 'serve-token');
  const access = new Access(tokenFile);
  const attached: BufferedCarrier[] = [];
  const log: string[] = [];
  const server = await openPageServer({
    host: options.host ?? '127.0.0.1',
    port: options.port ?? 0,
    allowedHosts: options.allowedHosts ?? [],
    pageDir,
    access,
    openAi: new OpenAiEndpoint({
      keyFile: join(folder, 'openai-key'),
      handlers: fakeHandlers({}),
      log: () => undefined,
    }),
    attach: (carrier) => attached.push(carrier),
    log: (line) => log.push(line),
  });
  cleanUps.push(() => server.close());
  const token = readFileSync(tokenFile, 'utf8').trim();
  return { server, access, attached, log, token, host: `127.0.0.1:${server.port}` };
}

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Sends bytes and reads until the server closes. */
function send(server: PageServer, text: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, '127.0.0.1');
    let answer = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => (answer += chunk));
    socket.on('error', reject);
    socket.on('close', () => {
      const [head = '', ...rest] = answer.split('\r\n\r\n');
      const [statusLine = '', ...lines] = head.split('\r\n');
      const headers = Object.fromEntries(
        lines.map((line) => [
          line.slice(0, line.indexOf(':')).toLowerCase(),
          line.slice(line.indexOf(':') + 2),
        ]),
      );
      resolve({ status: Number(statusLine.split(' ')[1]), headers, body: rest.join('\r\n\r\n') });
    });
    socket.write(text);
  });
}

function request(
  server: PageServer,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  const all = { Host: `127.0.0.1:${server.port}`, Connection: 'close', ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return send(server, `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
}

const handshake = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** Opens the printed address as a browser does. @returns the Cookie header it sends from then on */
async function launch(server: PageServer): Promise<string> {
  const url = new URL(server.launchUrl());
  const answer = await request(server, `${url.pathname}${url.search}`);
  expect(answer.status).toBe(303);
  return answer.headers['set-cookie']!.split(';')[0]!;
}

test('the printed address trades its token for a cookie, once, and leaves a clean address', async () => {
  const { server } = await open();
  const url = new URL(server.launchUrl());
  expect(url.host).toBe(`127.0.0.1:${server.port}`);
  const first = await request(server, `/${url.search}`);
  expect(first).toMatchObject({ status: 303, headers: { location: '/' } });
  expect(first.headers['set-cookie']).toMatch(
    new RegExp(`^caravan_${server.port}=[\\w-]{43}; HttpOnly; SameSite=Strict; Path=/; Max-Age=\\d+$`),
  );
  const page = await request(server, '/', { Cookie: first.headers['set-cookie']!.split(';')[0]! });
  expect(page).toMatchObject({ status: 200, body: 'the page' });
  const second = await request(server, `/${url.search}`);
  expect(second.status).toBe(401);
  expect(second.headers).not.toHaveProperty('set-cookie');
});

test('every answer has the security headers, refusals too', async () => {
  const { server, token } = await open();
  const answers = await Promise.all([
    request(server, '/', { Authorization: `Bearer ${token}` }),
    request(server, '/'),
    request(server, '/?token=wrong'),
    request(server, '/', { Host: 'attacker.com' }),
    request(server, '/none.js', { Authorization: `Bearer ${token}` }),
    request(server, '/', { Authorization: `Bearer ${token}` }, 'POST'),
    request(server, '/contract', { ...handshake, Origin: 'null' }),
    send(server, 'nonsense\r\n\r\n'),
  ]);
  expect(answers.map(({ status }) => status)).toEqual([200, 401, 401, 403, 404, 405, 403, 400]);
  for (const { headers } of answers)
    for (const [name, value] of Object.entries(securityHeaders))
      expect(headers[name.toLowerCase()]).toBe(value);
});

test('a foreign Host is refused before the token is looked at', async () => {
  const { server, token } = await open();
  const bearer = { Authorization: `Bearer ${token}` };
  for (const Host of [
    'attacker.com',
    `evil.localhost.attacker.com:${server.port}`,
    `127.0.0.1:${server.port + 1}`,
    'localhost',
  ]) {
    const answer = await request(server, '/', { ...bearer, Host });
    expect(answer).toMatchObject({ status: 403, body: 'Forbidden\n' });
    expect((await request(server, '/contract', { ...bearer, ...handshake, Host })).status).toBe(403);
  }
  expect((await send(server, `GET / HTTP/1.1\r\nAuthorization: Bearer ${token}\r\n\r\n`)).status).toBe(400);
  const launchUrl = new URL(server.launchUrl());
  expect((await request(server, `/${launchUrl.search}`, { Host: 'attacker.com' })).status).toBe(403);
  expect((await request(server, `/${launchUrl.search}`)).status, 'which did not use the token up').toBe(303);
});

test('an allowed name may be asked for, for a proxy in front', async () => {
  const { server, token } = await open({ allowedHosts: ['desk.example.org'] });
  const headers = {
    Host: 'desk.example.org',
    Origin: 'https://desk.example.org',
    Authorization: `Bearer ${token}`,
  };
  expect((await request(server, '/', headers)).status).toBe(200);
  const url = new URL(server.launchUrl());
  const opened = await request(server, `/${url.search}`, {
    Host: 'desk.example.org',
    'X-Forwarded-Proto': 'https',
  });
  expect(opened.headers['set-cookie']).toMatch(/; Secure$/);
});

test('without a session nothing is served, and the answer says where to get one', async () => {
  const { server, log } = await open();
  for (const path of ['/', '/index.html', '/assets/app-1a2b.js', '/runs/1', '/%2e%2e/x']) {
    const answer = await request(server, path);
    expect(answer.status, path).toBe(401);
    expect(answer.body).toContain('caravan serve');
    expect(answer.body).not.toContain('the page');
  }
  expect(log).toContain('page server: 401 GET /runs/1 (no session)');
});

test('the token in a query counts on / and nowhere else, and is never logged', async () => {
  const { server, token, log } = await open();
  const launchToken = new URL(server.launchUrl()).searchParams.get('token')!;
  for (const path of ['/contract', '/runs', '/index.html', '/assets/app-1a2b.js']) {
    for (const value of [token, launchToken]) {
      const answer = await request(server, `${path}?token=${value}`);
      expect(answer.status).toBe(401);
      expect(answer.headers).not.toHaveProperty('set-cookie');
      const Origin = `http://127.0.0.1:${server.port}`;
      expect((await request(server, `${path}?token=${value}`, { ...handshake, Origin })).status).toBe(401);
    }
  }
  expect(
    (await request(server, `/?token=${token}`)).status,
    'the token for programs is not for addresses',
  ).toBe(401);
  expect((await request(server, `/?token=${launchToken}`, {}, 'POST')).status).toBe(401);
  expect((await request(server, `/?token=${launchToken}`)).status, 'still unused').toBe(303);
  const said = log.join('\n');
  expect(said).toContain('/contract');
  expect(said).not.toContain(token);
  expect(said).not.toContain(launchToken);
  expect(said).not.toContain('?');
});

test('the cookie of another port does not count', async () => {
  const { server } = await open();
  const session = (await launch(server)).split('=')[1]!;
  expect((await request(server, '/', { Cookie: `caravan_${server.port}=${session}` })).status).toBe(200);
  expect((await request(server, '/', { Cookie: `caravan_${server.port + 1}=${session}` })).status).toBe(401);
});

test('a link on another site gets a page that reloads itself, so that the Strict cookie comes along', async () => {
  const { server } = await open();
  const Cookie = await launch(server);
  const navigation = {
    'Sec-Fetch-Mode': 'navigate',
    'Sec-Fetch-Dest': 'document',
    'Sec-Fetch-Site': 'cross-site',
  };
  const held = await request(server, '/', navigation);
  expect(held.status).toBe(200);
  expect(held.body).toMatch(/http-equiv="refresh" content="0;url=\/"/);
  const own = { ...navigation, 'Sec-Fetch-Site': 'same-origin' };
  expect((await request(server, '/', { ...own, Cookie })).body).toBe('the page');
  expect((await request(server, '/', own)).status, 'no loop without a session').toBe(401);
  expect((await request(server, '/runs', { ...navigation, Cookie })).status).toBe(403);
  expect((await request(server, '/', { 'Sec-Fetch-Site': 'cross-site', Cookie })).status).toBe(403);
});

test('serves the files of the page, its own routes, and nothing else', async () => {
  const { server, token } = await open();
  const get = (path: string) => request(server, path, { Authorization: `Bearer ${token}` });
  expect(await get('/assets/app-1a2b.js')).toMatchObject({
    status: 200,
    body: 'the script',
    headers: {
      'content-type': 'text/javascript; charset=utf-8',
      'cache-control': expect.stringContaining('immutable'),
    },
  });
  for (const path of ['/', '/runs', '/runs/20261125-1', '/chat?thread=3'])
    expect(await get(path)).toMatchObject({
      status: 200,
      body: 'the page',
      headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-cache' },
    });
  for (const path of ['/assets/none.js', '/secret.key', '/assets/app-1a2b.js.map'])
    expect((await get(path)).status, path).toBe(404);
});

test('no path leads out of the folder', async () => {
  const { server, token } = await open();
  const paths = [
    '/../outside.txt',
    '/..%2foutside.txt',
    '/%2e%2e/outside.txt',
    '/%2e%2e%2foutside.txt',
    '/..%5coutside.txt',
    '/assets/..%2f..%2foutside.txt',
    '/..%252foutside.txt',
    '/outside.txt%00.js',
    '/%00',
    '/%',
    '/%ff.js',
    '/c:/outside.txt',
    '/index.html::$DATA.txt',
    '/link.txt',
    '//outside.txt',
    '/....//outside.txt',
  ];
  for (const path of paths) {
    const answer = await request(server, path, { Authorization: `Bearer ${token}` });
    expect([400, 404], path).toContain(answer.status);
    expect(answer.body).not.toContain('outside');
  }
});

test('only GET and HEAD are answered', async () => {
  const { server, token } = await open();
  const Authorization = `Bearer ${token}`;
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
    expect(await request(server, '/', { Authorization, 'Content-Length': '0' }, method)).toMatchObject({
      status: 405,
      headers: { allow: 'GET, HEAD' },
    });
  const head = await request(server, '/', { Authorization }, 'HEAD');
  expect(head).toMatchObject({ status: 200, body: '', headers: { 'content-length': '8' } });
  for (const { headers } of [
    await request(server, '/', { Authorization, Origin: `http://127.0.0.1:${server.port}` }),
  ])
    expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
});

test('a WebSocket needs Origin and session, or the bearer token', async () => {
  const { server, token, attached } = await open();
  const Cookie = await launch(server);
  const Origin = `http://127.0.0.1:${server.port}`;
  const status = async (headers: Record<string, string>, path = '/contract') =>
    (await request(server, path, { ...handshake, ...headers })).status;
  expect(await status({ Origin })).toBe(401);
  expect(await status({ Cookie })).toBe(403);
  expect(await status({ Cookie, Origin: 'null' })).toBe(403);
  expect(await status({ Cookie, Origin: 'http://attacker.com' })).toBe(403);
  expect(await status({ Cookie, Origin, 'Sec-Fetch-Site': 'cross-site' })).toBe(403);
  expect(await status({ Authorization: 'Bearer wrong' })).toBe(401);
  expect(await status({ Cookie, Origin }, '/other')).toBe(404);
  expect(attached).toHaveLength(0);
  for (const headers of [{ Cookie, Origin }, { Authorization: `Bearer ${token}` }]) {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/contract`, {
      headers: { ...headers },
    });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    socket.terminate();
  }
  await expect.poll(() => attached).toHaveLength(2);
});

test('a message over the limit, and one that is no text, end their connection', async () => {
  const { server, token } = await open();
  for (const [message, code] of [
    ['a'.repeat(maxCallBytes + 1), 1009],
    [Buffer.from('{}'), 1008],
    ['{', 1008],
  ] as const) {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/contract`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    await new Promise((resolve) => socket.once('open', resolve));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
    socket.send(message);
    expect(await closed).toBe(code);
  }
});

test('who sends messages without end is cut off', async () => {
  const { server, token } = await open();
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/contract`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  await new Promise((resolve) => socket.once('open', resolve));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  for (let count = 0; count < 5000; count++) socket.send('{}');
  expect(await closed).toBe(1008);
});

test('a new token ends sessions and open pages', async () => {
  const { server, access } = await open();
  const Cookie = await launch(server);
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/contract`, {
    headers: { Cookie, Origin: `http://127.0.0.1:${server.port}` },
  });
  await new Promise((resolve) => socket.once('open', resolve));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  access.rotate();
  server.dropPages('the token was changed');
  expect(await closed).toBe(1001);
  expect((await request(server, '/', { Cookie })).status).toBe(401);
});

test('guessing is slowed down, and does not fill the log', async () => {
  const { server, log, token } = await open();
  const statuses: number[] = [];
  for (let count = 0; count < 140; count++) statuses.push((await request(server, `/?token=${count}`)).status);
  expect(statuses[0]).toBe(401);
  expect(statuses.at(-1)).toBe(429);
  expect(log.length).toBeLessThan(60);
  expect(
    (await request(server, '/', { Authorization: `Bearer ${token}` })).status,
    'who has a key gets in',
  ).toBe(200);
});

test('headers without end are refused', async () => {
  const { server } = await open();
  const socket = connect(server.port, '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined).resume();
  socket.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nX: ${'a'.repeat(20_000)}`);
  await closed;
});

test('takes the next free port, unless one was asked for', async () => {
  const { server } = await open();
  await expect(open({ port: server.port })).rejects.toMatchObject({
    code: 'bad_option',
    place: { field: 'port' },
  });
  const blocker = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => blocker.once('listening', resolve));
  blocker.close();
  await expect(open({ host: '203.0.113.7' })).rejects.toMatchObject({
    code: 'bad_option',
    place: { field: 'host' },
  });
});

test('says what it means to listen on a network', async () => {
  const { server } = await open({ host: '0.0.0.0' });
  expect(server.warning).toContain('ssh -L');
  expect((await open()).server.warning).toBeNull();
});

test('closing ends pages and requests under way', async () => {
  const { server, token } = await open();
  const idle = connect(server.port, '127.0.0.1');
  idle.on('error', () => undefined);
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/contract`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  await new Promise((resolve) => socket.once('open', resolve));
  const closed = vi.fn();
  socket.once('close', closed);
  await server.close();
  await expect.poll(() => closed).toHaveBeenCalled();
  await expect(request(server, '/')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});
