import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { graphFile } from '../../shared/model/onnxModel.ts';

/** Whether a model's folder is that of an ONNX export: a graph, and no config.json of a Hugging Face model. */
export async function isOnnxFolder(dir: string): Promise<boolean> {
  return (await isFile(join(dir, graphFile))) && !(await isFile(join(dir, 'config.json')));
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
