import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Run } from '../../shared/run/run.ts';
import { list } from '../options.ts';
import type { Output } from '../Output.ts';
import type { VerbContext } from '../Verb.ts';

/** What can be done to several runs at once, and what is said of each afterwards. */
export const markActions = [
  'tag',
  'star',
  'unstar',
  'archive',
  'unarchive',
  'trash',
  'restore',
  'remove',
] as const;
export type MarkAction = (typeof markActions)[number];

export async function markRuns(
  client: Client,
  action: MarkAction,
  runs: readonly Run[],
  options: VerbContext['options'],
  output: Output,
): Promise<void> {
  if (runs.length === 0) throw new CaravanError('bad_option', `runs ${action} takes one run or more`);
  const add = list(options, 'add');
  const drop = list(options, 'drop');
  if (action === 'tag' && add.length + drop.length === 0)
    throw new CaravanError('bad_option', 'runs tag needs --add TAG or --drop TAG');
  const marked: Run[] = [];
  for (const run of runs) {
    const { id } = run;
    switch (action) {
      case 'tag': {
        const kept = run.tags.filter((tag) => !drop.includes(tag));
        const { tags } = await client.call('updateRun', { id, tags: [...kept, ...add] }).then(keep);
        output.line(`${run.name}: ${tags.length > 0 ? tags.join(' ') : 'no tags'}`);
        break;
      }
      case 'star':
      case 'unstar':
        await client.call('updateRun', { id, starred: action === 'star' }).then(keep);
        output.line(`${run.name}: ${action === 'star' ? 'starred' : 'no star'}`);
        break;
      case 'archive':
      case 'unarchive':
        await client.call('updateRun', { id, archived: action === 'archive' }).then(keep);
        output.line(`${run.name}: ${action === 'archive' ? 'archived' : 'out of the archive'}`);
        break;
      case 'trash':
        await client.call('trashRun', { id }).then(keep);
        output.line(`${run.name}: in the trash; caravan runs restore ${id} brings it back`);
        break;
      case 'restore':
        await client.call('restoreRun', { id }).then(keep);
        output.line(`${run.name}: restored`);
        break;
      case 'remove':
        if (run.trashedAt === null)
          throw new CaravanError('wrong_state', `run '${run.name}' is not in the trash`, {
            mend: `First put it there: caravan runs trash ${id}.`,
          });
        await client.call('removeRun', { id });
        marked.push(run);
        output.line(`${run.name}: deleted with its checkpoints`);
    }
  }
  output.document(marked);

  function keep(run: Run): Run {
    marked.push(run);
    return run;
  }
}
