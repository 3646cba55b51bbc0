/** The plan asked backwards: from a few choices to the configuration that is asked about. */
import { runConfigSchema, type RunConfig } from '../../../core/shared/run/runConfig.ts';
import { unusedFields } from '../../../core/shared/run/runFields.ts';
import { variedFields, type Varied } from '../../../core/shared/run/run.ts';

export interface Asked {
  mix: string;
  method: RunConfig['method'];
  baseDtype: RunConfig['baseDtype'];
  microBatchSize: number;
  seqLen: number;
  adapterDim: number;
  loraRank: number;
  memoryGiB: number | null;
}

export const variedWords: Record<Varied, { title: string; unit: string; key: string }> = {
  microBatchSize: { title: 'Batch on the device', unit: 'sequences at once', key: 'batch' },
  seqLen: { title: 'Length', unit: 'tokens a sequence', key: 'length' },
  adapterDim: { title: 'Expert width', unit: 'channels', key: 'adapter' },
  loraRank: { title: 'LoRA rank', unit: 'channels', key: 'rank' },
};

/** What this method has at all. */
export function variedOf(method: RunConfig['method']): Varied[] {
  return variedFields.filter((field) => !unusedFields[method].includes(field));
}

/** A batch of a step holds at least what lies on the device at once. */
export function configOf(model: string, device: RunConfig['device'], asked: Asked): RunConfig | null {
  const { mix, method, baseDtype, microBatchSize, seqLen, adapterDim, loraRank } = asked;
  const parsed = runConfigSchema.safeParse({
    model,
    mix,
    method,
    device,
    microBatchSize,
    seqLen,
    adapterDim,
    loraRank,
    baseDtype: method === 'full' || method === 'upcycle' ? 'f32' : baseDtype,
  });
  return parsed.data ?? null;
}
