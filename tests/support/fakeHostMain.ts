// A host's process with services from a script: how hosts start, meet and end is tested with it, without addon or database.
// CARAVAN_TEST_VERSION: the version it claims to be. `updateRun` with a note 'busy' makes it busy, 'throw' makes a bug.
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostProcess } from '../../core/host/hostProcess.ts';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import { fakeServices } from './fakeServices.ts';

await hostProcess((home, endedUncleanly) => {
  const trace = (line: string) => appendFileSync(join(home, 'trace.txt'), `${line}\n`);
  if (process.env['CARAVAN_TEST_REFUSE'])
    throw new CaravanError('database_newer', 'a newer Caravan wrote this home', { mend: 'Update Caravan.' });
  trace(`open ${process.pid} ${endedUncleanly ? 'unclean' : 'clean'}`);
  let busy = false;
  return Promise.resolve(
    fakeServices(
      {
        listJobs: () => [],
        updateRun({ note }) {
          if (note === 'busy') busy = true;
          if (note === 'idle') busy = false;
          if (note === 'throw')
            setImmediate(() => {
              throw new Error('planted');
            });
          throw new CaravanError('not_found', 'done');
        },
      },
      {
        isBusy: () => busy,
        close: () => {
          trace(`close ${process.pid}`);
          return Promise.resolve();
        },
      },
    ),
  );
}, process.env['CARAVAN_TEST_VERSION']);
