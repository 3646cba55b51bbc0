/** Where keys and values lie, seen by a runtime that notes what it is given. */
import { expect, test } from 'vitest';
import type { OnnxArchitecture, OnnxProviderName } from '../../shared/model/onnxModel.ts';
import { GraphSession } from './GraphSession.ts';
import type { Runtime } from './runtime.ts';

const architecture = {
  numLayers: 1,
  numKvHeads: 2,
  headDim: 4,
  vocabSize: 3,
} as OnnxArchitecture;

class FakeTensor {
  disposed = false;
  readonly type: string;
  readonly data: { length: number };
  readonly dims: number[];
  constructor(type: string, data: { length: number }, dims: number[]) {
    this.type = type;
    this.data = data;
    this.dims = dims;
  }
  dispose(): void {
    this.disposed = true;
  }
}

async function open(provider: OnnxProviderName, inputNames?: string[]) {
  const runs: { feeds: Record<string, FakeTensor>; fetches: Record<string, FakeTensor | null> }[] = [];
  let options: Record<string, unknown> = {};
  const runtime = {
    Tensor: FakeTensor,
    InferenceSession: {
      create: (_path: string, given: Record<string, unknown>) => {
        options = given;
        return Promise.resolve({
          inputNames: inputNames ?? [
            'input_ids',
            'attention_mask',
            'past_key_values.0.key',
            'past_key_values.0.value',
          ],
          outputNames: ['logits', 'present.0.key', 'present.0.value'],
          release: () => Promise.resolve(),
          run(feeds: Record<string, FakeTensor>, fetches: Record<string, FakeTensor | null>) {
            runs.push({ feeds: { ...feeds }, fetches });
            const tokens = feeds['input_ids']!.dims[1]!;
            const present = () => new FakeTensor('float32', [], [1, 2, feeds['attention_mask']!.dims[1]!, 4]);
            return Promise.resolve({
              logits: new FakeTensor('float32', new Float32Array(tokens * 3), [1, tokens, 3]),
              'present.0.key': fetches['present.0.key'] ?? present(),
              'present.0.value': fetches['present.0.value'] ?? present(),
            });
          },
        });
      },
    },
  } as unknown as Runtime;
  const session = await GraphSession.open(runtime, '/export', 'model.onnx', architecture, provider);
  return { session, runs, options: () => options };
}

test('on the CPU one buffer is what is read and written, from the first token to the last', async () => {
  const { session, runs } = await open('cpu');
  const cache = session.createCache(10);
  await session.read(cache, Int32Array.of(1, 2, 3));
  await session.read(cache, Int32Array.of(4));
  for (const { feeds, fetches } of runs) {
    expect(feeds['past_key_values.0.key']).toBe(fetches['present.0.key']);
    expect(feeds['past_key_values.0.key']).toBe(runs[0]!.feeds['past_key_values.0.key']);
    expect(feeds['past_key_values.0.key']!.dims).toEqual([1, 2, 10, 4]);
  }
  expect(runs.map(({ feeds }) => feeds['attention_mask']!.dims)).toEqual([
    [1, 3],
    [1, 4],
  ]);
  await expect(session.read(cache, new Int32Array(7))).rejects.toThrow('outgrew');
});

test('on WebGPU what was written stays there and is what is read next, and is let go after that', async () => {
  const { session, runs, options } = await open('webgpu');
  expect(options()['preferredOutputLocation']).toEqual({
    'present.0.key': 'gpu-buffer',
    'present.0.value': 'gpu-buffer',
  });
  expect(options()['executionProviders']).toEqual(['webgpu', 'cpu']);
  const cache = session.createCache(10);
  await session.read(cache, Int32Array.of(1, 2, 3));
  const first = cache.feeds['past_key_values.0.key'] as unknown as FakeTensor;
  expect(first.dims).toEqual([1, 2, 3, 4]);
  await session.read(cache, Int32Array.of(4));
  expect(runs[1]!.feeds['past_key_values.0.key']).toBe(first);
  expect(first.disposed).toBe(true);
  session.closeCache(cache);
  expect((cache.feeds['past_key_values.0.key'] as unknown as FakeTensor).disposed).toBe(true);
});

test('a graph with other inputs is refused by their name', async () => {
  const names = ['input_ids', 'attention_mask', 'past_key_values.0.key'];
  await expect(open('cpu', names)).rejects.toThrow("'past_key_values.0.value'");
  await expect(open('cpu', [...names, 'past_key_values.0.value', 'position_ids'])).rejects.toThrow(
    "'position_ids'",
  );
});
