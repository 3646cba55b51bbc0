import { cpus } from 'node:os';
import { join } from 'node:path';
import type { TrainOptions } from '../../engine/AddonTypes.ts';
import type { Engines } from '../../engine/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Model } from '../../shared/model/model.ts';
import { isOnnxModel } from '../../shared/model/storedDtype.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { Datasets, FoundMix } from '../datasets/index.ts';
import type { Models, ResolvedModel } from '../models/index.ts';
import { findCudaTools, missingCuda } from '../system/index.ts';

/** A configuration whose every reference was looked up and whose every contradiction was ruled out. */
export interface PreparedRun {
  config: RunConfig;
  model: ResolvedModel;
  summary: Omit<Model, 'id' | 'addedAt'>;
  tokenizerHash: string;
  mix: FoundMix;
  template: 'camelidae' | 'model';
  deviceName: string;
  /** Of one device set trains one run at a time. */
  lane: string;
  /** Without the folder that receives checkpoints, and without the model's identity. */
  options: Omit<TrainOptions, 'checkpointDir'>;
}

/**
 * Everything that can be wrong with a run before it starts, in the order in which a person would mend it.
 * @throws `not_found`, `bad_config` with the field, `no_rows`, `cuda_unavailable`
 */
export async function prepareRun(
  config: RunConfig,
  { models, datasets, engines }: { models: Models; datasets: Datasets; engines: Engines },
): Promise<PreparedRun> {
  const model = await models.resolve(config.model);
  if (model.trained)
    throw new CaravanError('bad_config', `'${config.model}' is a run; training starts from a plain model`, {
      place: { field: 'model' },
      mend: 'Name a model of the library or a model folder; to go on with the run, resume it.',
    });
  const mix = await datasets.findMix(config.mix);
  const summary = await models.inspect(model.dir);
  if (isOnnxModel(summary.storedDtypes))
    throw new CaravanError('bad_config', `'${config.model}' is an ONNX export, which does not train`, {
      place: { field: 'model' },
      mend: 'Name the model that it was exported from.',
    });
  if (config.seqLen > summary.maxPositions)
    throw new CaravanError(
      'bad_config',
      `seqLen is ${config.seqLen}, but model '${model.name}' has ${summary.maxPositions} positions`,
      {
        place: { field: 'seqLen' },
        mend: `Use seqLen of at most ${summary.maxPositions}, here and in the mix's recipe.`,
      },
    );
  const { trainShard, tokenizerHash: shardTokenizer } = mix;
  if (trainShard === null || shardTokenizer === null || mix.mix.template === null)
    throw new CaravanError(
      'bad_config',
      mix.mix.rows === 0
        ? `mix '${mix.mix.name}' has no row to train on`
        : `mix '${mix.mix.name}' holds text alone, no tokens`,
      { place: { field: 'mix' }, mend: `Build it with model: ${model.name} in its recipe.` },
    );
  if (mix.mix.rows === 0)
    throw new CaravanError('no_rows', `mix '${mix.mix.name}' has no row to train on`, {
      place: { field: 'mix' },
    });
  const tokenizerHash = await models.tokenizerHash(model.tokenizerPath);
  if (tokenizerHash !== shardTokenizer)
    throw new CaravanError(
      'bad_config',
      `mix '${mix.mix.name}' was tokenised for ${mix.mix.model ?? 'another model'}, whose tokenizer is not that of '${model.name}'`,
      { place: { field: 'mix' }, mend: `Build the mix again with model: ${model.name} in its recipe.` },
    );
  if (mix.mix.seqLen !== null && mix.mix.seqLen > config.seqLen)
    throw new CaravanError(
      'bad_config',
      `rows of mix '${mix.mix.name}' are up to ${mix.mix.seqLen} tokens long, but seqLen is ${config.seqLen}`,
      {
        place: { field: 'seqLen' },
        mend: `Use seqLen: ${mix.mix.seqLen}, or build the mix with seqLen: ${config.seqLen} in its recipe.`,
      },
    );
  return {
    config,
    model,
    summary,
    tokenizerHash,
    mix,
    template: mix.mix.template,
    deviceName: await deviceName(config.device, engines),
    lane: `train:${config.device}`,
    options: trainOptions(config, model.dir, trainShard, mix.validationShard, mix.mix.contentHash),
  };
}

async function deviceName(device: RunConfig['device'], engines: Engines): Promise<string> {
  if (device === 'cpu') return cpus()[0]?.model.trim() ?? 'CPU';
  const gpus = (await engines.inference.devices()).filter(({ kind }) => kind === 'cuda');
  const found = gpus.find((one) => one.device === device);
  if (found) return found.name;
  if (gpus.length > 0)
    throw new CaravanError('cuda_unavailable', `there is no ${device} here`, {
      place: { field: 'device' },
      mend: `Use one of ${gpus.map((one) => `${one.device} (${one.name})`).join(', ')}.`,
    });
  const missing = missingCuda(await engines.inference.cudaStatus(), findCudaTools());
  throw new CaravanError('cuda_unavailable', missing?.found ?? 'the engine lists no GPU', {
    place: { field: 'device' },
    mend: missing?.mend ?? 'Run caravan doctor; until then use device: cpu.',
  });
}

function trainOptions(
  config: RunConfig,
  modelDir: string,
  trainShard: string,
  validationShard: string | null,
  mixHash: string,
): PreparedRun['options'] {
  const { name: _name, model: _model, mix: _mix, maxSteps, recomputeLayers, ...same } = config;
  return {
    ...same,
    modelDir,
    trainShard,
    ...(validationShard !== null && { validationShard }),
    ...(maxSteps !== undefined && { maxSteps }),
    ...(recomputeLayers !== undefined && { recomputeLayers }),
    identity: { mix: mixHash },
  };
}

/**
 * On resuming: what the run trained on must still be there, unchanged.
 * @throws `mix_mismatch`; `not_found` where the mix is gone
 */
export async function checkSameMix(
  locked: { name: string; dir: string; contentHash: string },
  datasets: Datasets,
): Promise<FoundMix> {
  const mix = await datasets.findMix(locked.dir);
  if (mix.mix.contentHash !== locked.contentHash)
    throw new CaravanError('mix_mismatch', `mix '${locked.name}' is not the one that the run began with`, {
      place: { file: join(locked.dir, 'manifest.json') },
      mend: 'Build the mix again from the same recipe and files, which gives the same bytes, or start a new run.',
    });
  return mix;
}
