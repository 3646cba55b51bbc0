import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { flag, list, number, text } from '../options.ts';
import type { Verb, VerbContext } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Open the workbench in a browser, here or through an SSH tunnel.',
  usage: 'serve [--host ADDRESS] [--port N] [--allowed-host NAME] [--new-token] [--openai] [--no-open]',
  help: `--host ADDRESS       127.0.0.1 by default; anything else lets the network in and says so
--port N             a fixed default, or the next free one
--allowed-host NAME  a further name that browsers may reach it by (behind a reverse proxy)
--new-token          end every session, and replace the token that programs use
--openai             open /v1 as OpenAI's API has it, for programs that speak it; prints its key when it is made
--no-openai          close it again; it stays as it was set
--new-openai-key     replace its key
--no-open            print the address only

The printed address works once: it trades its token for a cookie. On a server, keep the default and use
ssh -L PORT:127.0.0.1:PORT. Ctrl-C ends the page's server; runs go on.`,
  options: {
    host: { type: 'string' },
    port: { type: 'string' },
    'allowed-host': { type: 'string', multiple: true },
    'new-token': { type: 'boolean' },
    openai: { type: 'boolean' },
    'no-openai': { type: 'boolean' },
    'new-openai-key': { type: 'boolean' },
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
    const openAi = await setOpenAi(client, options);
    output.document({ url: serve.url, port: serve.port, ...(openAi && { openai: openAi }) });
    output.line(serve.url);
    if (openAi?.enabled) {
      output.line(`OpenAI's API: ${openAi.url}`);
      output.line(
        openAi.key === null
          ? '  with the key that was shown when it was made; --new-openai-key makes another'
          : `  key, shown this once: ${openAi.key}`,
      );
    }
    if (!flag(options, 'no-open') && !output.json) openBrowser(serve.url);
    await new Promise<void>((resolve) => {
      interrupted.addEventListener('abort', () => resolve());
      client.onClose(() => resolve());
    });
    await client.call('stopServe', {}).catch(() => undefined);
    return 0;
  },
};

/** As the words of the command say; without one, as it was. */
async function setOpenAi(client: Client, options: VerbContext['options']) {
  const newKey = flag(options, 'new-openai-key');
  const enabled = flag(options, 'openai') || newKey;
  if (enabled && flag(options, 'no-openai'))
    throw new CaravanError('bad_option', '--no-openai closes what --openai opens');
  if (enabled || flag(options, 'no-openai')) return client.call('setOpenAi', { enabled, newKey });
  const status = await client.call('openAiStatus', {});
  return status.enabled ? { ...status, key: null } : null;
}

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
