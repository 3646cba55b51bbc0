import { relative } from 'node:path';
import type { TrainOptions } from '../../engine/AddonTypes.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { FoundMix } from '../datasets/index.ts';
import type { JobContext } from '../jobs/index.ts';
import { checkDisk, checkFits, roomOn } from './memory.ts';
import { checkSameMix } from './prepareRun.ts';
import type { RunRecord } from './runTable.ts';
import type { SuperviseDeps } from './superviseRun.ts';
import { whatFits } from './whatFits.ts';

/**
 * Whether what the run was resolved to still holds, right before its engine starts: it may have waited for days. Fills in
 * the base model's identity at the first start and holds later ones to it.
 * @throws `does_not_fit`, `disk_full`, `mix_mismatch`, `model_mismatch`, `not_found`
 */
export async function checkInputs(
  { run, lock }: RunRecord,
  options: TrainOptions,
  { engines, datasets, models, data, memory, freeDiskBytes }: SuperviseDeps,
  context: JobContext,
): Promise<{ mix: FoundMix; diskWarning: string | null }> {
  const plan = await engines.inference.plan(options);
  const { available } = await roomOn(run.config.device, memory(), () => engines.inference.devices());
  await checkFits(plan, run.config, available, 'available', async () => {
    const { maxPositions } = await models.inspect(lock.model.dir);
    const { mix } = await datasets.findMix(lock.mix.dir);
    return whatFits(
      run.config,
      available,
      { maxPositions, longestRow: mix.seqLen ?? 1, batchSize: run.config.batchSize },
      (change) => engines.inference.plan({ ...options, ...change }),
    );
  });
  const diskWarning = checkDisk(plan, run.config, await freeDiskBytes(run.dir), run.dir);
  const mix = await checkSameMix(lock.mix, datasets);
  for (const shard of [mix.trainShard, mix.validationShard])
    if (shard !== null) {
      const { hash } = await data.request('hashFile', { path: shard }, { signal: context.signal });
      if (hash !== mix.files[relative(mix.mix.dir, shard).replaceAll('\\', '/')])
        throw new CaravanError(
          'mix_mismatch',
          `a token shard of mix '${lock.mix.name}' is not what its manifest says`,
          {
            place: { file: shard },
            mend: 'Build the mix again from the same recipe and files.',
          },
        );
    }
  const identity = await models.identityOf(
    lock.model.dir,
    (done, total) => context.progress({ done, total, unit: 'bytes', stage: 'hashing the base model' }),
    context.signal,
  );
  if (lock.model.identity !== null && lock.model.identity !== identity)
    throw new CaravanError(
      'model_mismatch',
      `the weights of '${lock.model.name}' are not those that the run began with: the run began with ${lock.model.identity}, the folder now holds ${identity}`,
      { place: { file: lock.model.dir }, mend: 'Bring the old weights back, or start a new run.' },
    );
  lock.model.identity = identity;
  lock.options.identity = { model: identity, mix: lock.mix.contentHash };
  return { mix, diskWarning };
}
