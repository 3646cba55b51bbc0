import { createInterface } from 'node:readline/promises';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import { flag } from '../options.ts';
import { hubAccess } from '../references.ts';
import type { Verb, VerbContext } from '../Verb.ts';

export const verb: Verb = {
  summary: 'See what a download from the model hub would bring, or set its token.',
  usage: 'hub show OWNER/NAME[@REVISION][:FILES] [--dataset] | hub status | hub token [--forget]',
  help: `show    files, sizes and commit of what model add (with --dataset: import) would download, and what it leaves there
status  which hub is spoken to, and where its token comes from
token   reads a token from the keyboard or standard input and keeps it, for its owner alone, in the home; --forget removes it

Where a path of a model or of rows could stand, hub:OWNER/NAME can: model add hub:OWNER/NAME, import hub:OWNER/NAME, in a
recipe hub: OWNER/NAME. @REVISION is a branch, tag or commit (default: main); what is downloaded is pinned to the commit.
Downloads go to hub/ in the home, each file is checked against its hash, and one that was interrupted goes on where it ended.
HF_ENDPOINT names another hub; HF_TOKEN, the kept token, or that of Hugging Face's own programs lets in where one is needed;
HTTPS_PROXY and NO_PROXY of the host's environment are honoured.`,
  options: { dataset: { type: 'boolean' }, forget: { type: 'boolean' } },
  async run(context) {
    const [action, reference, extra] = context.words;
    if (extra !== undefined) throw new CaravanError('bad_option', `did not expect '${extra}'`);
    if (action === 'show' && reference !== undefined) return show(context, reference);
    if (action === 'status' && reference === undefined) return status(context);
    if (action === 'token' && reference === undefined) return token(context);
    throw new CaravanError('bad_option', 'say show OWNER/NAME, status or token');
  },
};

async function show({ options, output, connect }: VerbContext, reference: string): Promise<number> {
  const client = await connect();
  const plan = await client.call('inspectHub', {
    kind: flag(options, 'dataset') ? 'dataset' : 'model',
    reference,
    ...hubAccess(),
  });
  output.document(plan);
  const { origin, files, bytes, presentBytes, freeDiskBytes, leftOut, gated } = plan;
  output.line(`${origin.id}@${origin.revision}: commit ${origin.commit}${gated ? ', gated' : ''}`);
  output.table(
    ['file', 'size'],
    files.map(({ path, size }) => [path, formatBytes(size)]),
  );
  output.line(
    `${formatBytes(bytes)}, ${formatBytes(presentBytes)} of it here; ${formatBytes(freeDiskBytes)} free on the disk`,
  );
  for (const line of leftOut) output.line(line);
  return 0;
}

const places = {
  environment: 'HF_TOKEN',
  home: 'kept in the home',
  huggingface: "that of Hugging Face's own programs",
};

async function status({ output, connect }: VerbContext): Promise<number> {
  const client = await connect();
  const found = await client.call('hubStatus', {});
  output.document(found);
  output.line(`${found.endpoint}, token: ${found.token === null ? 'none' : places[found.token]}`);
  return 0;
}

async function token({ options, output, connect }: VerbContext): Promise<number> {
  const given = flag(options, 'forget') ? null : await readToken();
  if (given === '') throw new CaravanError('bad_option', 'no token was given');
  const client = await connect();
  await client.call('setHubToken', { token: given });
  const { endpoint } = await client.call('hubStatus', {});
  output.document({ kept: given !== null, endpoint });
  output.line(given === null ? 'The token is forgotten.' : `The token for ${endpoint} is kept in the home.`);
  return 0;
}

/** Never as a word of the command: those are seen by everyone on the machine and kept by the shell. */
async function readToken(): Promise<string> {
  if (process.stdin.isTTY) process.stderr.write('Token: ');
  const lines = createInterface({ input: process.stdin, terminal: false });
  for await (const line of lines) {
    lines.close();
    return line.trim();
  }
  return '';
}
