/** An ONNX export: its graph, its numbers, and what it gives in ONNX Runtime against what the engine gives. */
import { rm, stat, statfs, writeFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildGraph } from '../onnx/export/buildGraph.ts';
import { genaiConfig } from '../onnx/export/genaiConfig.ts';
import { openOnnxModel } from '../onnx/session/openOnnxModel.ts';
import { loadRuntime } from '../onnx/session/runtime.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { formatBytes } from '../shared/format.ts';
import { dataFile, graphFile, onnxTypes, type OnnxType } from '../shared/model/onnxModel.ts';
import type { Addon, ExportedModel, ExportOptions } from './AddonTypes.ts';

/** What must hold (docs/user-guide.md tells people). */
const largestDifference = 1e-3;
const largestKl = 1e-4;
/** The same graph in f32 arithmetic, for as long as the numbers of a quantised file are checked. */
const exactFile = 'exact.onnx';
/** Graph, tokenizer and report beside the numbers. */
const sparedBytes = 64 * 2 ** 20;

type TellStage = (stage: string, done: number, total: number) => void;

/** As the addon's `planExport`. */
export async function planOnnx(
  addon: Addon,
  options: ExportOptions,
): Promise<{ bytes: number; tensors: number }> {
  const architecture = await addon.describeOnnxExport(options);
  const { tensors, dataBytes } = buildGraph(architecture, typeOf(options), { version: '' });
  return { bytes: dataBytes, tensors: tensors.reduce((all, { parts }) => all + parts.length, 0) };
}

/** @throws `internal` for a type that the engine should have refused */
function typeOf({ type }: ExportOptions): OnnxType {
  const known = onnxTypes.find((each) => each === type);
  if (known === undefined) throw new CaravanError('internal', `${type} is no type of ONNX exports`);
  return known;
}

/** Fills `options.outDir`. */
export async function exportOnnx(
  addon: Addon,
  options: ExportOptions,
  rows: Int32Array[],
  { tell, signal, bosId }: { tell: TellStage; signal: AbortSignal; bosId: number | null },
): Promise<ExportedModel> {
  const { outDir, eosIds } = options;
  const architecture = await addon.describeOnnxExport(options);
  const type = typeOf(options);
  const { version } = addon.buildInfo();
  const built = buildGraph(architecture, type, { version });
  await checkRoom(outDir, built.dataBytes);
  await writeFile(join(outDir, graphFile), built.model);
  await writeFile(join(outDir, 'genai_config.json'), genaiConfig(architecture, { bos: bosId, eos: eosIds }));
  const reference = await addon.exportOnnx(
    options,
    built.tensors,
    join(outDir, dataFile),
    rows,
    (stage, done, total) => {
      tell(stage, done, total);
      return !signal.aborted;
    },
  );

  const runtime = await loadRuntime();
  async function logitsOf(file: string, stage: string): Promise<Float32Array[]> {
    const providers = [{ name: 'cpu' as const, missing: null }];
    const model = await openOnnxModel(outDir, { runtime, providers, addon, file });
    try {
      const logits: Float32Array[] = [];
      for (const row of rows) {
        if (signal.aborted) throw new CaravanError('cancelled', 'the export was cancelled');
        logits.push(await model.logits(row));
        tell(stage, logits.length, rows.length);
      }
      return logits;
    } finally {
      model.dispose();
    }
  }
  const compare = (wanted: Float32Array[], found: Float32Array[]) =>
    addon.compareLogits(wanted, found, architecture.vocabSize);

  const exported = await logitsOf(graphFile, 'running the export in ONNX Runtime');
  let exact = exported;
  if (type === 'int4') {
    const exactGraph = buildGraph(architecture, type, { version, exact: true });
    await writeFile(join(outDir, exactFile), exactGraph.model);
    try {
      exact = await logitsOf(exactFile, 'running its numbers in f32');
    } finally {
      await rm(join(outDir, exactFile), { force: true });
    }
  }
  const logits = await compare(reference.logits, exact);
  const loss = reference.trained && (await compare(reference.trained, exported));
  const close =
    type === 'f16'
      ? logits.kl <= largestKl && logits.decidedOtherwise === 0
      : logits.maxDifference <= largestDifference;
  return {
    files: await Promise.all(
      [graphFile, dataFile, 'genai_config.json'].map(async (name) => ({
        name,
        bytes: (await stat(join(outDir, name))).size,
      })),
    ),
    parity: {
      ...reference.parity,
      passed: close && logits.tokens > 0 && reference.parity.tensors.wrong.length === 0,
      limit:
        type === 'f16'
          ? 'KL at most 1e-4 nats a token, and the same choice wherever the margin exceeds the largest difference'
          : type === 'int4'
            ? 'largest logit difference at most 1e-3, computed in f32 from the numbers of the file'
            : 'largest logit difference at most 1e-3',
      logits,
      loss,
    },
  };
}

/** Ids that end an answer, where every reader looks for them: the folder has no config.json. */
export async function writeGenerationConfig(
  outDir: string,
  eosIds: readonly number[],
): Promise<{ name: string; bytes: number }> {
  const name = 'generation_config.json';
  const file = join(outDir, name);
  const copied = await readFile(file, 'utf8').then(
    (text) => JSON.parse(text) as Record<string, unknown>,
    () => ({}),
  );
  const text = `${JSON.stringify({ ...copied, eos_token_id: eosIds }, null, 2)}\n`;
  await writeFile(file, text);
  return { name, bytes: Buffer.byteLength(text) };
}

async function checkRoom(outDir: string, dataBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(outDir);
  const needed = dataBytes + sparedBytes;
  if (needed > bavail * bsize)
    throw new CaravanError(
      'disk_full',
      `the export takes ${formatBytes(needed)} and the disk has ${formatBytes(bavail * bsize)} left`,
      { place: { file: outDir }, mend: 'Free some space, or choose a folder on another disk.' },
    );
}
