/** ONNX Runtime as this machine has it. */
import type * as Ort from 'onnxruntime-node';
import { CaravanError } from '../../shared/contract/errors.ts';
import { dataTypes, encodeModel } from '../format/modelProto.ts';
import type { OnnxProvider, OnnxProviderName } from '../../shared/model/onnxModel.ts';

export type Runtime = Pick<typeof Ort, 'InferenceSession' | 'Tensor' | 'listSupportedBackends'>;

let loaded: Promise<Runtime> | undefined;

/** @throws `missing_dependency` where its library does not load */
export function loadRuntime(): Promise<Runtime> {
  loaded ??= import('onnxruntime-node').then(
    // A CommonJS package: what it exports stands under `default` as well, and there alone for older bundlers.
    (module) => (module as { default?: Runtime }).default ?? module,
    (error: unknown) => {
      throw new CaravanError(
        'missing_dependency',
        `ONNX Runtime does not load: ${(error as Error).message}`,
        {
          mend: 'Run npm install anew: the package onnxruntime-node brings the library for this system.',
        },
      );
    },
  );
  return loaded;
}

const platforms: Record<OnnxProviderName, { on: string[]; called: string }> = {
  cpu: { on: ['linux', 'win32', 'darwin'], called: 'every system' },
  webgpu: { on: ['linux', 'win32', 'darwin'], called: 'every system' },
  dml: { on: ['win32'], called: 'Windows' },
  coreml: { on: ['darwin'], called: 'macOS' },
};

/** What can compute here, each tried with a graph of one node; the CPU first. */
export async function findProviders(
  runtime: Runtime,
  platform: string = process.platform,
): Promise<OnnxProvider[]> {
  const bundled = new Set(runtime.listSupportedBackends().map(({ name }) => name));
  const found: OnnxProvider[] = [];
  for (const name of Object.keys(platforms) as OnnxProviderName[]) {
    const { on, called } = platforms[name];
    const missing = !on.includes(platform)
      ? `is for ${called}`
      : !bundled.has(name)
        ? `is not in ONNX Runtime's build for ${platform} ${process.arch}`
        : await tryProvider(runtime, name);
    found.push({ name, missing });
  }
  return found;
}

/** @returns why it cannot compute; null where it did */
async function tryProvider(runtime: Runtime, provider: OnnxProviderName): Promise<string | null> {
  try {
    const session = await runtime.InferenceSession.create(doublingGraph(), {
      executionProviders: [provider],
      logSeverityLevel: 4,
    });
    const { y } = await session.run({ x: new runtime.Tensor('float32', Float32Array.of(21), [1]) });
    await session.release();
    return (y!.data as Float32Array)[0] === 42 ? null : 'computes 21 + 21 wrong';
  } catch (error) {
    return lastSentence((error as Error).message);
  }
}

/** Of a message that begins with places in ONNX Runtime's sources, what is meant for people. */
function lastSentence(message: string): string {
  const [first = ''] = message.split('\n');
  const after = first.lastIndexOf('was false. ');
  return (after < 0 ? first : first.slice(after + 'was false. '.length)).trim();
}

function doublingGraph(): Uint8Array {
  const value = (name: string) => ({
    name,
    type: { tensorType: { elemType: dataTypes.float, shape: { dim: [{ dimValue: 1 }] } } },
  });
  return encodeModel({
    irVersion: 10,
    producerName: 'caravan',
    producerVersion: '',
    opsetImport: [{ domain: '', version: 21 }],
    metadataProps: [],
    graph: {
      name: 'doubling',
      node: [{ name: 'y', opType: 'Add', domain: '', input: ['x', 'x'], output: ['y'], attribute: [] }],
      initializer: [],
      input: [value('x')],
      output: [value('y')],
    },
  });
}
