import { lstat, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import {
  dataFile,
  graphFile,
  metadataKey,
  onnxMetadataSchema,
  type OnnxMetadata,
} from '../../shared/model/onnxModel.ts';
import {
  dataTypes,
  decodeModel,
  elementBytes,
  externalLocation,
  type GraphProto,
  type ModelProto,
  type TensorProto,
} from './modelProto.ts';

export interface OnnxFolder {
  metadata: OnnxMetadata;
  model: ModelProto;
  /** Of graph and numbers. */
  fileBytes: number;
}

/** A graph without its numbers is small: ours have a few hundred kilobytes. */
const largestGraph = 64 * 2 ** 20;
/** Numbers that a graph may hold itself: shapes and axes. */
const largestInside = 1 << 16;
/** Subgraphs within subgraphs: ours have one level. */
const deepest = 4;
const knownDomains = new Set(['', 'ai.onnx', 'com.microsoft']);

/**
 * Reads and checks an exported graph before ONNX Runtime sees it: that its numbers lie in the one file beside it, inside its
 * bounds, and that it names no operators but those of ONNX and ONNX Runtime.
 * @throws `not_found` without model.onnx; `bad_file` naming what is wrong
 */
export async function readOnnxFolder(dir: string): Promise<OnnxFolder> {
  const file = join(dir, graphFile);
  const graphSize = await sizeOf(file, largestGraph);
  const model = decode(await readFile(file), file);
  const dataPath = join(dir, dataFile);
  const dataSize = await sizeOf(dataPath, Infinity).catch((error: unknown) => {
    if (CaravanError.from(error).code === 'not_found') return null;
    throw error;
  });
  checkModel(model, file);
  checkGraph(model.graph, { file, dataPath, dataSize, depth: 0 });
  return { metadata: readMetadata(model, file), model, fileBytes: graphSize + (dataSize ?? 0) };
}

function bad(file: string, what: string, field?: string): CaravanError {
  return new CaravanError('bad_file', what, {
    place: { file, ...(field !== undefined && { field }) },
    mend: 'Export the model again, or copy the whole folder anew.',
  });
}

/** A link may point anywhere: what is read must lie here. */
async function sizeOf(file: string, limit: number): Promise<number> {
  const found = await lstat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
    throw error;
  });
  if (!found)
    throw new CaravanError('not_found', 'the folder has no such file', {
      place: { file },
      mend: 'Give a folder that an ONNX export was written to, whole.',
    });
  if (!found.isFile()) throw bad(file, 'is no plain file');
  if (found.size > limit) throw bad(file, `is ${found.size} bytes long; a graph beside its numbers is small`);
  return found.size;
}

function decode(bytes: Uint8Array, file: string): ModelProto {
  let model: ModelProto;
  try {
    model = decodeModel(bytes);
  } catch (error) {
    throw bad(file, `is no ONNX model: ${(error as Error).message}`);
  }
  if (typeof model.graph !== 'object') throw bad(file, 'is no ONNX model: it holds no graph');
  return model;
}

function checkModel(model: ModelProto, file: string): void {
  if ((model.functions?.length ?? 0) > 0 || (model.trainingInfo?.length ?? 0) > 0)
    throw bad(file, 'holds functions or training state, which exports never do');
  for (const { domain } of model.opsetImport)
    if (!knownDomains.has(domain ?? ''))
      throw bad(file, `imports operators of '${domain}'; exports use ONNX's and ONNX Runtime's alone`);
}

interface Check {
  file: string;
  dataPath: string;
  dataSize: number | null;
  depth: number;
}

function checkGraph(graph: GraphProto, check: Check): void {
  const { file, depth } = check;
  if (depth > deepest) throw bad(file, 'nests its graphs too deep');
  if ((graph.sparseInitializer?.length ?? 0) > 0)
    throw bad(file, 'holds sparse tensors, which exports never do');
  for (const tensor of graph.initializer) checkTensor(tensor, check);
  for (const node of graph.node) {
    if (!knownDomains.has(node.domain ?? ''))
      throw bad(file, `node ${node.name}: operators of '${node.domain}' are none of ONNX Runtime's`);
    for (const attribute of node.attribute) {
      if (attribute.sparseTensor?.length || attribute.sparseTensors?.length)
        throw bad(file, `node ${node.name}: holds sparse tensors, which exports never do`);
      for (const tensor of [attribute.t, ...(attribute.tensors ?? [])])
        if (tensor) checkTensor(tensor, check);
      for (const inner of [attribute.g, ...(attribute.graphs ?? [])])
        if (inner) checkGraph(inner, { ...check, depth: depth + 1 });
    }
  }
}

function checkTensor(tensor: TensorProto, { file, dataPath, dataSize }: Check): void {
  const where = `tensor ${tensor.name}`;
  const bytesEach = elementBytes[tensor.dataType];
  if (bytesEach === undefined)
    throw bad(file, `${where}: its type ${tensor.dataType} is none that exports use`);
  if (!tensor.dims.every((dim) => Number.isSafeInteger(dim) && dim >= 0))
    throw bad(file, `${where}: its shape is none`);
  const bytes = tensor.dims.reduce((all, dim) => all * dim, bytesEach);
  if (tensor.dataLocation !== externalLocation) {
    if ((tensor.externalData?.length ?? 0) > 0)
      throw bad(file, `${where}: is inside and outside of the file at once`);
    const inside = tensor.rawData?.length
      ? tensor.rawData.length
      : tensor.dataType === dataTypes.int64
        ? (tensor.int64Data?.length ?? 0) * 8
        : 0;
    if (bytes > largestInside || inside !== bytes)
      throw bad(file, `${where}: needs ${bytes} bytes and holds ${inside}`);
    return;
  }
  const fields = new Map((tensor.externalData ?? []).map(({ key, value }) => [key, value]));
  const location = fields.get('location');
  if (location !== dataFile)
    throw bad(
      file,
      `${where}: its numbers must lie in ${dataFile} beside the graph, not in '${location ?? ''}'`,
    );
  const number = (key: string) => (/^\d{1,16}$/.test(fields.get(key) ?? '') ? Number(fields.get(key)) : NaN);
  const offset = number('offset');
  const length = number('length');
  if (length !== bytes || !Number.isSafeInteger(offset))
    throw bad(file, `${where}: offset and length do not fit its shape of ${bytes} bytes`);
  if (dataSize === null) throw bad(dataPath, 'is missing: the graph keeps its numbers there');
  if (offset + length > dataSize)
    throw bad(
      dataPath,
      `ends at byte ${dataSize}, and ${where} reaches to ${offset + length}: it was cut short`,
    );
}

function readMetadata(model: ModelProto, file: string): OnnxMetadata {
  const text = model.metadataProps.find(({ key }) => key === metadataKey)?.value;
  if (text === undefined)
    throw new CaravanError(
      'bad_file',
      'was not exported by Caravan: its graph does not say what model it is',
      {
        place: { file, field: `metadata_props: ${metadataKey}` },
        mend: 'Add the original model (safetensors or GGUF) and export it: caravan export MODEL --format onnx.',
      },
    );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  const parsed = onnxMetadataSchema.safeParse(value);
  if (parsed.success) {
    const { windows, rotates, numLayers } = parsed.data.architecture;
    if (windows.length === numLayers && rotates.length === numLayers) return parsed.data;
  }
  throw bad(
    file,
    'does not say what model it is in the way of this version',
    `metadata_props: ${metadataKey}`,
  );
}
