import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { contentTypes, findPageFile } from '../../core/host/serve/pageFiles.ts';
import { securityHeaders } from '../../core/host/serve/securityHeaders.ts';
import { pageHost } from './security.ts';

/** Answers app:// requests with the files of the built page, by the rules and under the headers of `caravan serve`. */
export function pageResponder(pageDir: string): (request: Request) => Promise<Response> {
  const refuse = (status: number) => new Response('', { status, headers: securityHeaders });
  return async (request) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405);
    const url = new URL(request.url);
    if (url.host !== pageHost) return refuse(404);
    const file = await findPageFile(pageDir, url.pathname);
    if (file === 'bad') return refuse(400);
    if (file === null) return refuse(404);
    try {
      const body = request.method === 'HEAD' ? null : await readFile(file);
      return new Response(body, {
        headers: { ...securityHeaders, 'Content-Type': contentTypes[extname(file)]! },
      });
    } catch {
      return refuse(404);
    }
  };
}
