import type { RunConfig } from './runConfig.ts';

/** What would lower the memory that this very configuration needs, as one sentence. */
export function lowerNeed(config: RunConfig, more: readonly string[] = []): string {
  const mends = [
    config.microBatchSize > 1 && `lower microBatchSize (${config.microBatchSize})`,
    !config.recompute && 'set recompute: true',
    config.optimizer === 'adamw' && 'use optimizer: adamw8bit',
    config.device !== 'cpu' && !config.optimizer.startsWith('paged_') && `use optimizer: paged_adamw8bit`,
    config.trainDtype === 'f32' && 'use trainDtype: bf16',
    config.baseDtype !== 'nf4' &&
      (config.method === 'pesc' || config.method === 'lora') &&
      'use baseDtype: nf4',
    `lower seqLen (${config.seqLen})`,
    ...more,
  ].filter((mend) => mend !== false);
  return `${mends.join(', ').replace(/^./, (letter) => letter.toUpperCase())}.`;
}
