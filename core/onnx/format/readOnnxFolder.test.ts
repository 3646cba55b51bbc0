/** Graphs that were damaged, or made to read what is not theirs: each is refused by name, before ONNX Runtime sees it. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { OnnxArchitecture } from '../../shared/model/onnxModel.ts';
import { buildGraph } from '../export/buildGraph.ts';
import { decodeModel, encodeModel, type ModelProto, type TensorProto } from './modelProto.ts';
import { readOnnxFolder } from './readOnnxFolder.ts';

const architecture: OnnxArchitecture = {
  architecture: 'LlamaForCausalLM',
  family: 'llama',
  hiddenSize: 64,
  intermediateSize: 96,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 16,
  vocabSize: 100,
  contextLength: 32,
  normEps: 1e-5,
  tiedEmbeddings: true,
  qkvBias: false,
  oBias: false,
  mlpBias: false,
  qkNorm: false,
  windows: [0, 0],
  rotates: [true, true],
  experts: { count: 4, topK: 2, adapterDim: 32, adapterScale: 1 },
  bosIds: [0],
  eosIds: [1],
};

const folder = mkdtempSync(join(tmpdir(), 'onnx-'));
const whole = join(folder, 'whole');
let model: Uint8Array;
let copies = 0;

beforeAll(() => {
  const built = buildGraph(architecture, 'int4', { version: '1' });
  model = built.model;
  mkdirSync(whole);
  writeFileSync(join(whole, 'model.onnx'), model);
  writeFileSync(join(whole, 'model.onnx.data'), new Uint8Array(built.dataBytes));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A copy with another graph. */
function changed(change: (model: ModelProto) => void): string {
  const dir = copied();
  const decoded = decodeModel(model);
  change(decoded);
  writeFileSync(join(dir, 'model.onnx'), encodeModel(decoded));
  return dir;
}

function copied(): string {
  const dir = join(folder, `copy-${++copies}`);
  cpSync(whole, dir, { recursive: true });
  return dir;
}

function externalOf({ graph }: ModelProto): TensorProto {
  return graph.initializer.find(({ externalData }) => externalData!.length > 0)!;
}

function place(tensor: TensorProto, key: string, value: string): void {
  tensor.externalData!.find((entry) => entry.key === key)!.value = value;
}

test('reads what an export wrote', async () => {
  const read = await readOnnxFolder(whole);
  expect(read.metadata).toEqual({ schema: 'caravan-onnx-1', type: 'int4', architecture });
  expect(read.fileBytes).toBeGreaterThan(100_000);
});

test.each(['../secret', '/etc/passwd', 'sub/model.onnx.data', '..\\secret', 'C:\\secret', 'model.onnx', ''])(
  "numbers in '%s' are refused",
  async (location) => {
    const dir = changed((decoded) => place(externalOf(decoded), 'location', location));
    await expect(readOnnxFolder(dir)).rejects.toMatchObject({
      code: 'bad_file',
      message: expect.stringContaining('must lie in model.onnx.data') as string,
    });
  },
);

test("so they are in a branch's graph and in an attribute", async () => {
  const stray: TensorProto = {
    name: 'stray',
    dims: [1],
    dataType: 1,
    dataLocation: 1,
    externalData: [
      { key: 'location', value: '../secret' },
      { key: 'offset', value: '0' },
      { key: 'length', value: '4' },
    ],
  };
  const branches = (decoded: ModelProto) =>
    decoded.graph.node.find(({ opType }) => opType === 'If')!.attribute;
  const inBranch = changed((decoded) => branches(decoded)[0]!.g!.initializer.push(stray));
  const inAttribute = changed((decoded) =>
    decoded.graph.node[0]!.attribute.push({ name: 'value', type: 4, t: stray }),
  );
  for (const dir of [inBranch, inAttribute])
    await expect(readOnnxFolder(dir)).rejects.toThrow(/stray.*must lie in model.onnx.data/);
});

test('a link in the place of the numbers is refused', async () => {
  const dir = copied();
  rmSync(join(dir, 'model.onnx.data'));
  symlinkSync('/etc/passwd', join(dir, 'model.onnx.data'));
  await expect(readOnnxFolder(dir)).rejects.toThrow('no plain file');
});

test.each<[string, (decoded: ModelProto) => void, string]>([
  ['a length beyond the file', (m) => place(externalOf(m), 'offset', '99999999'), 'cut short'],
  ['an offset that is no number', (m) => place(externalOf(m), 'offset', '-4'), 'do not fit'],
  ['a length of another shape', (m) => place(externalOf(m), 'length', '8'), 'do not fit'],
  ['a shape beyond all memory', (m) => (externalOf(m).dims = [2 ** 40, 2 ** 40]), 'do not fit'],
  ['a negative shape', (m) => (externalOf(m).dims = [-1]), 'its shape is none'],
  ['a type that exports do not use', (m) => (externalOf(m).dataType = 8), 'none that exports use'],
  [
    'numbers inside that are not there',
    (m) => {
      const inside = m.graph.initializer.find(({ rawData }) => (rawData?.length ?? 0) > 0)!;
      inside.dims = [1000];
    },
    'needs 8000 bytes',
  ],
  ['operators of others', (m) => m.opsetImport.push({ domain: 'evil', version: 1 }), "operators of 'evil'"],
  ['a node of others', (m) => (m.graph.node[3]!.domain = 'evil'), "operators of 'evil'"],
  ['functions', (m) => (m.functions = [new Uint8Array([10, 1, 65])]), 'functions'],
  ['no word of what it is', (m) => (m.metadataProps = []), 'not exported by Caravan'],
  ['a wrong word', (m) => (m.metadataProps[0]!.value = '{"schema":1}'), 'way of this version'],
])('a graph with %s is refused', async (_, change, words) => {
  await expect(readOnnxFolder(changed(change))).rejects.toMatchObject({
    code: 'bad_file',
    message: expect.stringContaining(words) as string,
  });
});

test('files that were cut short or are something else are refused', async () => {
  const cut = copied();
  truncateSync(join(cut, 'model.onnx'), 5000);
  await expect(readOnnxFolder(cut)).rejects.toMatchObject({ code: 'bad_file' });
  const short = copied();
  truncateSync(join(short, 'model.onnx.data'), 1000);
  await expect(readOnnxFolder(short)).rejects.toThrow('cut short');
  const text = copied();
  writeFileSync(join(text, 'model.onnx'), 'version https://git-lfs.github.com/spec/v1\n');
  await expect(readOnnxFolder(text)).rejects.toThrow('is no ONNX model');
  const empty = copied();
  writeFileSync(join(empty, 'model.onnx'), '');
  await expect(readOnnxFolder(empty)).rejects.toThrow('holds no graph');
  const without = copied();
  rmSync(join(without, 'model.onnx.data'));
  await expect(readOnnxFolder(without)).rejects.toThrow('is missing');
  await expect(readOnnxFolder(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'not_found' });
});

test(
  'of 500 graphs with changed bytes each is read, or refused with its file',
  { timeout: 60_000 },
  async () => {
    const dir = copied();
    let state = 7;
    const next = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    let refused = 0;
    for (let round = 0; round < 500; round++) {
      let bytes = Uint8Array.from(model);
      for (let change = 0; change <= next(4); change++) bytes[next(bytes.length)] = next(256);
      if (next(5) === 0) bytes = bytes.subarray(0, next(bytes.length));
      writeFileSync(join(dir, 'model.onnx'), bytes);
      try {
        await readOnnxFolder(dir);
      } catch (error) {
        expect(error).toBeInstanceOf(CaravanError);
        expect((error as CaravanError).place?.file).toContain('model.onnx');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
    expect(refused).toBeLessThan(500);
  },
);
