import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { readOnnxFolder } from '../onnx/format/readOnnxFolder.ts';
import { dataFile, graphFile } from '../shared/model/onnxModel.ts';
import type { RequestResult } from './protocol.ts';

/** What an exported graph says of its model, as config.json and headers say it of others. */
export async function inspectOnnx(dir: string): Promise<RequestResult<'inspectModel'>> {
  const { metadata, fileBytes } = await readOnnxFolder(dir);
  const { type, architecture: a } = metadata;
  const { hiddenSize: c, intermediateSize: f, numLayers, headDim, experts } = a;
  const q = a.numHeads * headDim;
  const kv = a.numKvHeads * headDim;
  const biases = (a.qkvBias ? q + 2 * kv : 0) + (a.oBias ? c : 0);
  const attention = numLayers * (c * (2 * q + 2 * kv) + biases);
  const mlp = numLayers * (3 * c * f + (a.mlpBias ? 2 * f + c : 0));
  const norms = numLayers * (2 * c + (a.qkNorm ? 2 * headDim : 0)) + c;
  const embedding = a.vocabSize * c;
  const head = a.tiedEmbeddings ? 0 : embedding;
  const ofExperts = experts
    ? numLayers * (experts.count * c + 2 * experts.count * experts.adapterDim * c)
    : 0;
  return {
    architecture: a.architecture,
    family: a.family,
    parameters: {
      embedding,
      attention,
      mlp,
      norms,
      head,
      total: embedding + attention + mlp + norms + head + ofExperts,
    },
    hiddenSize: c,
    intermediateSize: f,
    numLayers,
    numHeads: a.numHeads,
    numKvHeads: a.numKvHeads,
    headDim,
    vocabSize: a.vocabSize,
    maxPositions: a.contextLength,
    tiedEmbeddings: a.tiedEmbeddings,
    ...(experts && { experts: { ...experts, parameters: ofExperts } }),
    storedDtypes: [`ONNX ${type}`],
    fileBytes,
  };
}

/** Of graph and numbers as they lie in their files: there is one way to cut an export. */
export async function hashOnnx(dir: string, hashFile: (path: string) => Promise<string>): Promise<string> {
  const hashes = [await hashFile(join(dir, graphFile)), await hashFile(join(dir, dataFile))];
  return createHash('sha256').update(hashes.join('\n')).digest('hex');
}
