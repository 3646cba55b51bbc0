import type { TrainingPlan } from '../../engine/AddonTypes.ts';
import { formatBytes } from '../../shared/format.ts';
import { unusedFields } from '../../shared/run/runFields.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { Varied } from '../../shared/run/run.ts';
import { fitsInto, type Room } from './memory.ts';
import { boundsOf, findLargest, type Limits } from './predictions.ts';

/** Settings that lower the need without changing what is trained, as far as the device has them. */
function savers(config: RunConfig): Partial<RunConfig>[] {
  const gpu = config.device !== 'cpu';
  return [
    ...(config.recompute ? [] : [{ recompute: true }]),
    ...(config.optimizer === 'adamw' ? [{ optimizer: 'adamw8bit' as const }] : []),
    ...(gpu && config.optimizer === 'adamw' ? [{ optimizer: 'paged_adamw' as const }] : []),
    ...(gpu && config.optimizer === 'adamw8bit' ? [{ optimizer: 'paged_adamw8bit' as const }] : []),
    ...(config.trainDtype === 'f32' ? [{ trainDtype: 'bf16' as const }] : []),
  ];
}

const spelled = (change: Partial<RunConfig>) =>
  Object.entries(change)
    .map(([key, value]) => `${key}: ${String(value)}`)
    .join(', ');

/**
 * The largest settings with which a run that is too large would fit, each alone with all else as it is; where none is
 * enough, what would be together.
 * @param plan of the run's configuration with some of it changed
 */
export async function whatFits(
  config: RunConfig,
  room: Room,
  limits: Limits,
  plan: (change: Partial<RunConfig>) => Promise<TrainingPlan>,
): Promise<string> {
  const largest = async (vary: Varied, with_: Partial<RunConfig>) => {
    const [least, most] = boundsOf(vary, limits);
    if (least > config[vary]) return null;
    const found = await findLargest([least, Math.min(most, config[vary])], room, (value) =>
      plan({ ...with_, [vary]: value }),
    );
    return found && ({ [vary]: found.value } as Partial<RunConfig>);
  };
  const unused = unusedFields[config.method];
  const numbers = (['microBatchSize', 'seqLen', 'adapterDim'] as const).filter(
    (key) => !unused.includes(key),
  );
  const alone: Partial<RunConfig>[] = [];
  for (const vary of numbers) {
    const change = await largest(vary, {});
    if (change) alone.push(change);
  }
  for (const change of savers(config)) if (fitsInto(await plan(change), room)) alone.push(change);
  if (alone.length > 0) return `Each of these fits, all else as it is: ${alone.map(spelled).join('; ')}.`;

  const together = Object.assign({ microBatchSize: 1 }, ...savers(config)) as Partial<RunConfig>;
  for (const vary of [null, 'seqLen', 'adapterDim'] as const) {
    if (vary !== null && unused.includes(vary)) continue;
    const change = vary === null ? {} : await largest(vary, together);
    if (change && fitsInto(await plan({ ...together, ...change }), room))
      return `No single setting is enough; together these fit: ${spelled({ ...together, ...change })}.`;
  }
  const least = await plan(together);
  return `With ${spelled(together)} it would still take ${formatBytes(least.totalMemoryBytes)}: use a smaller model or baseDtype: nf4.`;
}
