import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { CaravanError } from '../../shared/contract/errors.ts';
import { flag, list, number, text } from '../options.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Open the workbench in a browser, here or through an SSH tunnel.',
  usage: 'serve [--host ADDRESS] [--port N] [--allowed-host NAME] [--new-token] [--no-open]',
  help: `--host ADDRESS       127.0.0.1 by default; anything else lets the network in and says so
--port N             a fixed default, or the next free one
--allowed-host NAME  a further name that browsers may reach it by (behind a reverse proxy)
--new-token          end every session, and replace the token that programs use
--no-open            print the address only

The printed address works once: it trades its token for a cookie. On a server, keep the default and use
ssh -L PORT:127.0.0.1:PORT. Ctrl-C ends the page's server; runs go on.`,
  options: {
    host: { type: 'string' },
    port: { type: 'string' },
    'allowed-host': { type: 'string', multiple: true },
    'new-token': { type: 'boolean' },
    'no-open': { type: 'boolean' },
  },
  async run({ options, output, connect, interrupted }) {
    const port = number(options, 'port');
    if (port !== undefined && (!Number.isInteger(port) || port < 0 || port > 65535))
      throw new CaravanError('bad_option', `--port needs a number from 0 to 65535, not ${port}`);
    const host = text(options, 'host');
    const client = await connect();
    const serve = await client.call('startServe', {
      ...(host !== undefined && { host }),
      ...(port !== undefined && { port }),
      allowedHosts: list(options, 'allowed-host'),
      newToken: flag(options, 'new-token'),
    });
    if (serve.warning) output.remark(serve.warning);
    output.document({ url: serve.url, port: serve.port });
    output.line(serve.url);
    if (!flag(options, 'no-open') && !output.json) openBrowser(serve.url);
    await new Promise<void>((resolve) => {
      interrupted.addEventListener('abort', () => resolve());
      client.onClose(() => resolve());
    });
    await client.call('stopServe', {}).catch(() => undefined);
    return 0;
  },
};

/** Opens the address where there is a desktop to show it; a server without one just has the printed line. */
function openBrowser(url: string): void {
  const [command, args] =
    process.platform === 'darwin'
      ? ['open', [url]]
      : process.platform === 'win32'
        ? ['explorer.exe', [url]]
        : ['xdg-open', [url]];
  if (process.platform === 'linux' && !process.env['DISPLAY'] && !process.env['WAYLAND_DISPLAY']) return;
  if (
    process.platform === 'linux' &&
    !['/usr/bin/xdg-open', '/bin/xdg-open'].some((path) => existsSync(path))
  )
    return;
  spawn(command as string, args as string[], { stdio: 'ignore', detached: true })
    .on('error', () => undefined)
    .unref();
}
