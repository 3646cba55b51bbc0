/** What stands between this machine and computing on an NVIDIA GPU: for the doctor, and for a run that asks for one. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { CallResult } from '../../shared/contract/contract.ts';
import type { CudaStatus } from '../../shared/run/cudaStatus.ts';

type Check = CallResult<'doctor'>['checks'][number];

/** What an engine without CUDA cannot tell. */
export interface CudaTools {
  /** The CUDA toolkit's compiler is here. */
  nvcc: boolean;
  /** An NVIDIA driver is loaded. */
  driver: boolean;
}

export function findCudaTools(env: NodeJS.ProcessEnv = process.env): CudaTools {
  const folders = [...(env['PATH'] ?? '').split(delimiter).filter(Boolean), '/usr/local/cuda/bin'];
  return {
    nvcc:
      (env['CUDACXX'] ?? '') !== '' ||
      folders.some((folder) => ['nvcc', 'nvcc.exe'].some((name) => existsSync(join(folder, name)))),
    driver: existsSync('/proc/driver/nvidia/version'),
  };
}

/** The part that is missing and its mend; null where a GPU can be used. */
export function missingCuda(status: CudaStatus, tools: CudaTools): { found: string; mend: string } | null {
  const { built, neededCuda, driverCuda, driverVersion, devices, unavailable } = status;
  const gpus = devices.map(({ name, computeCapability }) => `${name} (${computeCapability})`).join(', ');
  const build = tools.nvcc
    ? 'Run npm run build:cuda.'
    : 'Install the CUDA toolkit (nvcc), then run npm run build:cuda.';
  if (!built) {
    if (gpus !== '') return { found: `${gpus} is here, but this engine was built without CUDA`, mend: build };
    if (tools.driver || driverCuda !== null)
      return { found: 'an NVIDIA driver is here, but this engine was built without CUDA', mend: build };
    return {
      found: 'this engine was built without CUDA, and no NVIDIA driver is installed',
      mend: `Use device: cpu. On a machine with an NVIDIA GPU and its driver: ${build}`,
    };
  }
  if (unavailable === null) return null;
  if (driverCuda === null)
    return {
      found: `no NVIDIA driver is installed; this engine was built with CUDA ${neededCuda}`,
      mend: `Install a driver that knows CUDA ${neededCuda} or newer; until then use device: cpu.`,
    };
  if (isOlder(driverCuda, neededCuda ?? '0') && devices.length === 0)
    return {
      found:
        `the NVIDIA driver${driverVersion === null ? '' : ` ${driverVersion}`} knows CUDA up to ${driverCuda}, ` +
        `this engine needs ${neededCuda}`,
      mend: `Install a driver that knows CUDA ${neededCuda} or newer; until then use device: cpu.`,
    };
  if (devices.length > 0)
    return {
      found: `this engine holds CUDA code for ${status.architectures.join(', ')}, which does not run on ${gpus}`,
      mend: build,
    };
  return {
    found: unavailable,
    mend: 'See whether nvidia-smi lists a GPU, and whether CUDA_VISIBLE_DEVICES hides it; until then use device: cpu.',
  };
}

/** One line for the GPU, one for each that cannot be used beside one that can, one for each library that a GPU wants. */
export function checkCuda(status: CudaStatus, tools: CudaTools): Check[] {
  const missing = missingCuda(status, tools);
  if (missing) {
    // Nothing is amiss on a machine that has no part of it.
    const none = !status.built && !tools.driver && status.driverCuda === null && status.devices.length === 0;
    return [
      {
        name: 'GPU',
        status: none ? 'ok' : 'warning',
        found: missing.found,
        mend: none ? null : missing.mend,
      },
    ];
  }
  const { devices, driverVersion, driverCuda, neededCuda, cublaslt, nvml } = status;
  return [
    ...devices.map(({ name, computeCapability, hasCode }): Check => {
      const found = `${name}, compute capability ${computeCapability}`;
      return hasCode
        ? {
            name: 'GPU',
            status: 'ok',
            found: `${found}, driver ${driverVersion ?? 'of unknown version'} (CUDA ${driverCuda}; needed: ${neededCuda})`,
            mend: null,
          }
        : {
            name: 'GPU',
            status: 'warning',
            found: `${found}: this engine holds no code for it`,
            mend: 'Run npm run build:cuda -- --arch all.',
          };
    }),
    {
      name: 'cuBLASLt',
      status: cublaslt.missing === null ? 'ok' : 'warning',
      found: cublaslt.missing ?? `${cublaslt.version}, ${cublaslt.path}`,
      mend:
        cublaslt.missing === null
          ? null
          : `Chat and training work without it, slower. Install CUDA ${neededCuda}'s libraries, or name their folder in CARAVAN_CUDA_PATH.`,
    },
    {
      name: 'NVML',
      status: nvml.missing === null ? 'ok' : 'warning',
      found: nvml.missing ?? `${nvml.version}, ${nvml.path}`,
      mend:
        nvml.missing === null
          ? null
          : "It comes with the driver. Without it the GPU's free memory, load and temperature are unknown.",
    },
  ];
}

function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [thanMajor = 0, thanMinor = 0] = than.split('.').map(Number);
  return major < thanMajor || (major === thanMajor && minor < thanMinor);
}
