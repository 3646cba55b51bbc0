import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes } from '../../shared/format.ts';
import { cleanableKinds, storageWords, type CleanableKind } from '../../shared/storage.ts';
import { flag } from '../options.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'What the home takes of the disk, and the clean-up of what can be had again.',
  usage: `cache [list | clean [${cleanableKinds.join('|')}]… [--dry-run]]`,
  help: `clean        removes what is named, or all that can be had again; the trash only where it is named.
             What is in use, or was within the last hour, stays.
--dry-run    say what would go, and remove nothing`,
  options: { 'dry-run': { type: 'boolean' } },
  async run({ words, options, output, connect }) {
    const [action = 'list', ...named] = words;
    const client = await connect();
    if (action === 'list') {
      const storage = await client.call('readStorage', {});
      output.document(storage);
      output.line(storage.home);
      output.table(
        ['kind', 'takes', 'can be freed', 'what'],
        storage.shares.map(({ kind, bytes, freeableBytes }) => [
          kind,
          formatBytes(bytes),
          freeableBytes === null ? null : formatBytes(freeableBytes),
          storageWords[kind].what,
        ]),
      );
      output.line(
        `${formatBytes(storage.disk.freeBytes)} of ${formatBytes(storage.disk.totalBytes)} are free on its disk`,
      );
      return 0;
    }
    if (action !== 'clean') throw new CaravanError('bad_option', `cache ${action}: expected list or clean`);
    const kinds = named.length > 0 ? named.map(cleanable) : cleanableKinds.filter((kind) => kind !== 'trash');
    const dryRun = flag(options, 'dry-run');
    const result = await client.call('cleanStorage', { kinds, dryRun });
    output.document(result);
    for (const { what, bytes } of result.freed)
      output.line(`${dryRun ? 'would remove' : 'removed'} ${what}: ${formatBytes(bytes)}`);
    for (const { what, why } of result.kept) output.line(`kept ${what}: ${why}`);
    output.line(`${dryRun ? 'would free' : 'freed'} ${formatBytes(result.freedBytes)}`);
    return 0;
  },
};

function cleanable(name: string): CleanableKind {
  const kind = cleanableKinds.find((one) => one === name);
  if (!kind) throw new CaravanError('bad_option', `'${name}' is none of ${cleanableKinds.join(', ')}`);
  return kind;
}
