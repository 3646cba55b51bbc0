import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CudaStatus } from '../../shared/run/cudaStatus.ts';
import { checkCuda, findCudaTools, missingCuda } from './cudaChecks.ts';

const h100 = {
  name: 'NVIDIA H100 80GB HBM3',
  computeCapability: '9.0',
  hasCode: true,
  totalMemoryBytes: 80e9,
  freeMemoryBytes: 79e9,
};
const fine: CudaStatus = {
  built: true,
  architectures: ['90a'],
  neededCuda: '13.0',
  driverCuda: '13.0',
  driverVersion: '580.159.04',
  unavailable: null,
  devices: [h100],
  cublaslt: { path: '/cuda/libcublasLt.so.13', version: '13.1.0', missing: null },
  nvml: { path: '/lib/libnvidia-ml.so.1', version: '13.580', missing: null },
};
const absent = (missing: string) => ({ path: null, version: null, missing });
const unbuilt: CudaStatus = {
  ...fine,
  built: false,
  architectures: [],
  neededCuda: null,
  driverCuda: null,
  driverVersion: null,
  unavailable: 'this build holds no CUDA kernels',
  devices: [],
  cublaslt: absent('not looked for'),
  nvml: absent('libnvidia-ml.so.1 is not here'),
};
const all = { nvcc: true, driver: true };
const none = { nvcc: false, driver: false };

test('all is there', () => {
  expect(missingCuda(fine, all)).toBeNull();
  expect(checkCuda(fine, all)).toEqual([
    {
      name: 'GPU',
      status: 'ok',
      found: 'NVIDIA H100 80GB HBM3, compute capability 9.0, driver 580.159.04 (CUDA 13.0; needed: 13.0)',
      mend: null,
    },
    { name: 'cuBLASLt', status: 'ok', found: '13.1.0, /cuda/libcublasLt.so.13', mend: null },
    { name: 'NVML', status: 'ok', found: '13.580, /lib/libnvidia-ml.so.1', mend: null },
  ]);
});

test('no build and no GPU: nothing is amiss, and a run is told both', () => {
  expect(checkCuda(unbuilt, none)).toEqual([
    {
      name: 'GPU',
      status: 'ok',
      found: 'this engine was built without CUDA, and no NVIDIA driver is installed',
      mend: null,
    },
  ]);
  expect(missingCuda(unbuilt, none)?.mend).toMatch(/^Use device: cpu\..*npm run build:cuda/);
});

test('no build on a machine with a GPU: the line that builds, and the compiler first where it is missing', () => {
  const seen = { ...unbuilt, driverCuda: '13.0', devices: [{ ...h100, hasCode: false }] };
  expect(checkCuda(seen, all)).toEqual([
    {
      name: 'GPU',
      status: 'warning',
      found: 'NVIDIA H100 80GB HBM3 (9.0) is here, but this engine was built without CUDA',
      mend: 'Run npm run build:cuda.',
    },
  ]);
  expect(missingCuda(seen, none)?.mend).toBe('Install the CUDA toolkit (nvcc), then run npm run build:cuda.');
  // Without NVML only the driver's own file tells.
  expect(checkCuda(unbuilt, { nvcc: true, driver: true })).toMatchObject([
    { status: 'warning', found: 'an NVIDIA driver is here, but this engine was built without CUDA' },
  ]);
});

test('no driver', () => {
  const status = { ...fine, driverCuda: null, driverVersion: null, devices: [], unavailable: 'no driver' };
  expect(checkCuda(status, { nvcc: true, driver: false })).toEqual([
    {
      name: 'GPU',
      status: 'warning',
      found: 'no NVIDIA driver is installed; this engine was built with CUDA 13.0',
      mend: 'Install a driver that knows CUDA 13.0 or newer; until then use device: cpu.',
    },
  ]);
});

test.each([
  ['12.4', true],
  ['9.2', true],
  ['13.0', false],
  ['13.1', false],
])('a driver that knows CUDA %s is too old for 13.0: %s', (driverCuda, old) => {
  const status = { ...fine, driverCuda, devices: [], unavailable: 'CUDA finds no device' };
  expect(missingCuda(status, all)?.found).toBe(
    old
      ? `the NVIDIA driver 580.159.04 knows CUDA up to ${driverCuda}, this engine needs 13.0`
      : 'CUDA finds no device',
  );
});

test('an architecture without code: of all GPUs, or of one beside another', () => {
  const old = { ...h100, name: 'Tesla V100', computeCapability: '7.0', hasCode: false };
  expect(checkCuda({ ...fine, devices: [old], unavailable: 'none runs it' }, all)).toEqual([
    {
      name: 'GPU',
      status: 'warning',
      found: 'this engine holds CUDA code for 90a, which does not run on Tesla V100 (7.0)',
      mend: 'Run npm run build:cuda.',
    },
  ]);
  expect(checkCuda({ ...fine, devices: [h100, old] }, all).map(({ status }) => status)).toEqual([
    'ok',
    'warning',
    'ok',
    'ok',
  ]);
});

test('no cuBLASLt, no NVML: each says what goes on without it', () => {
  const status = { ...fine, cublaslt: absent('libcublasLt.so.13 is not here'), nvml: absent('no NVML') };
  expect(missingCuda(status, all)).toBeNull();
  expect(checkCuda(status, all)).toMatchObject([
    { name: 'GPU', status: 'ok' },
    {
      name: 'cuBLASLt',
      status: 'warning',
      found: 'libcublasLt.so.13 is not here',
      mend: expect.stringContaining('Chat and training work without it') as string,
    },
    { name: 'NVML', status: 'warning', found: 'no NVML' },
  ]);
});

test('nvcc is found on the path, or named by CUDACXX', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nvcc-'));
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const before = findCudaTools({ PATH: bin }).nvcc;
  writeFileSync(join(bin, 'nvcc'), '');
  expect(findCudaTools({ PATH: bin }).nvcc).toBe(true);
  expect(findCudaTools({ CUDACXX: '/opt/nvcc' }).nvcc).toBe(true);
  // A toolkit at its usual place is found whatever the path says.
  expect(before).toBe(findCudaTools({}).nvcc);
  rmSync(folder, { recursive: true });
});
