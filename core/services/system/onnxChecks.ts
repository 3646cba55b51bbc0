import type { CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { OnnxProvider, OnnxProviderName } from '../../shared/model/onnxModel.ts';

type Check = CallResult<'doctor'>['checks'][number];

const names: Record<OnnxProviderName, string> = {
  cpu: 'CPU',
  webgpu: 'WebGPU',
  dml: 'DirectML',
  coreml: 'CoreML',
};

/** What runs exported graphs, and why something does not. Without it all but those work. */
export function checkOnnx(providers: OnnxProvider[] | CaravanError): Check {
  if (providers instanceof CaravanError)
    return {
      name: 'ONNX Runtime',
      status: 'warning',
      found: providers.message,
      mend: providers.mend ?? 'ONNX exports can neither be made nor talked to until it loads.',
    };
  const usable = providers.filter(({ missing }) => missing === null).map(({ name }) => names[name]);
  const missing = providers.flatMap(({ name, missing: why }) =>
    why === null ? [] : [`${names[name]} (${why})`],
  );
  return {
    name: 'ONNX Runtime',
    status: usable.length === 0 ? 'warning' : 'ok',
    found:
      (usable.length === 0 ? 'nothing can compute' : usable.join(', ')) +
      (missing.length === 0 ? '' : `; not ${missing.join(', not ')}`),
    mend: usable.length === 0 ? 'Run npm install anew.' : null,
  };
}
