import type { OpenModelOptions } from '../../engine/AddonTypes.ts';
import { storedBaseDtype } from '../../shared/model/storedDtype.ts';
import type { ResolvedModel } from '../models/index.ts';

export type BaseDtype = OpenModelOptions['baseDtype'];

/**
 * How a model is opened to be talked to. A run's as it was trained; a plain one exactly as it is stored: bf16 weights
 * stay bf16, NF4 stays NF4, others become f32, and all compute in f32. `baseDtype` overrides.
 */
export function openOptions(
  resolved: ResolvedModel,
  storedDtypes: readonly string[],
  baseDtype?: BaseDtype,
): OpenModelOptions {
  const { dir, trained, adapterDir } = resolved;
  if (trained) {
    const { config, checkpointDir } = trained;
    return {
      modelDir: dir,
      checkpointDir,
      baseDtype: baseDtype ?? config.baseDtype,
      computeDtype: baseDtype === 'f32' ? 'f32' : config.computeDtype,
      doubleQuant: config.doubleQuant,
    };
  }
  return {
    modelDir: dir,
    baseDtype: baseDtype ?? storedBaseDtype(storedDtypes),
    computeDtype: 'f32',
    doubleQuant: true,
    ...(adapterDir !== undefined && { checkpointDir: adapterDir }),
  };
}

/** What the answer's prompt looks like: as the run was trained, else as the model's maker says, else Camelidae's. */
export function chooseTemplate(
  asked: 'auto' | 'camelidae' | 'model',
  { trained, tokens }: ResolvedModel,
): 'camelidae' | 'model' {
  if (asked !== 'auto') return asked;
  if (trained) return trained.template;
  return tokens.chatTemplate === null ? 'camelidae' : 'model';
}
