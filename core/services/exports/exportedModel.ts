import { basename } from 'node:path';
import type { InferenceEngine } from '../../engine/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { isOnnxModel, storedBaseDtype } from '../../shared/model/storedDtype.ts';
import type { Models, ResolvedModel, TrainedModel } from '../models/index.ts';

type ExportRequest = Parameters<InferenceEngine['export']>[0];

/** What is exported, as the engine is asked for it. */
export type ExportedModel = Pick<ExportRequest, 'name' | 'template' | 'run'> & {
  model: Pick<ExportRequest['model'], 'checkpointDir' | 'baseDtype' | 'doubleQuant'>;
};

/** A run as it was trained, or a model as its files have it. @throws `bad_option` where it is neither, whole */
export function exportedOf(resolved: ResolvedModel, models: Models): Promise<ExportedModel> {
  const { trained } = resolved;
  return trained ? Promise.resolve(exportedRun(trained)) : exportedModel(resolved, models);
}

function exportedRun({ runId, runName, checkpointDir, config, template }: TrainedModel): ExportedModel {
  return {
    name: runName,
    template,
    run: { id: runId, name: runName, method: config.method, step: stepOf(checkpointDir) },
    model: { checkpointDir, baseDtype: config.baseDtype, doubleQuant: config.doubleQuant },
  };
}

async function exportedModel(resolved: ResolvedModel, models: Models): Promise<ExportedModel> {
  const { model, dir, name, tokens, adapterDir } = resolved;
  if (adapterDir !== undefined)
    throw new CaravanError('bad_option', `'${name}' is an adapter, not a whole model`, {
      place: { file: adapterDir },
      mend: 'Export the run that it came from.',
    });
  const { storedDtypes } = model ?? (await models.inspect(dir));
  if (isOnnxModel(storedDtypes))
    throw new CaravanError('bad_option', `'${name}' is an ONNX export already`, { place: { file: dir } });
  return {
    name,
    template: tokens.chatTemplate === null ? 'camelidae' : 'model',
    run: null,
    model: { checkpointDir: '', baseDtype: storedBaseDtype(storedDtypes), doubleQuant: true },
  };
}

function stepOf(checkpointDir: string): number {
  return Number(/^step-(\d+)$/.exec(basename(checkpointDir))?.[1] ?? 0);
}
