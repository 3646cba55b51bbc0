import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFakeData } from '../../../tests/support/fakeData.ts';
import { createFakeEngines, type FakeEngines } from '../../../tests/support/fakeEngines.ts';
import { calls } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { checkAddon, checkBrowser, checkDisk, checkHome, checkMemory, checkNode } from './checks.ts';
import { createSystemService, type SystemService } from './index.ts';
import { checkOnnx } from './onnxChecks.ts';

let home: string;
let engines: FakeEngines;
let service: SystemService;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'system-'));
  engines = createFakeEngines();
  service = createSystemService({
    home,
    version: '0.1.0',
    sqliteVersion: '3.54.1',
    data: createFakeData(),
    engines,
    hubProcess: { pid: null },
    trainingProcesses: () => [{ name: 'training first', pid: process.pid, runId: 'abc' }],
  });
});
afterEach(() => rmSync(home, { recursive: true }));

const build = {
  version: '1',
  buildId: 'b1',
  compiler: 'gcc 12',
  cuda: false,
  simd: { built: ['portable', 'avx2'], used: 'avx2' },
};

test('the doctor names everything it looked at, by the contract', async () => {
  const report = calls.doctor.result.parse(await service.handlers.doctor({}));
  expect(report.checks.map(({ name }) => name)).toEqual([
    'Node',
    'engine',
    'vector instructions',
    'processor',
    'GPU',
    'ONNX Runtime',
    'memory',
    'home',
    'disk',
    'SQLite',
    'browser',
  ]);
  expect(report.devices).toMatchObject([{ kind: 'cpu', name: 'a processor', units: 2 }]);
  expect(report.cuda).toMatchObject({ built: false, devices: [] });
  expect(report.versions).toMatchObject({ caravan: '0.1.0', engine: 'b1', sqlite: '3.54.1' });
  expect(readdirSync(home)).toEqual([]);
});

test('an engine that does not load is missing, and the report stands all the same', async () => {
  engines.answers.buildInfo = () =>
    Promise.reject(
      new CaravanError('missing_dependency', 'the native addon does not load', { mend: 'Build it.' }),
    );
  const report = calls.doctor.result.parse(await service.handlers.doctor({}));
  expect(report.checks.find(({ name }) => name === 'engine')).toEqual({
    name: 'engine',
    status: 'missing',
    found: 'the native addon does not load',
    mend: 'Build it.',
  });
  expect(report.devices).toHaveLength(1);
  expect(report.cuda).toBeNull();
});

test('the status tells of every process, by the contract', async () => {
  const status = calls.systemStatus.result.parse(await service.handlers.systemStatus({}));
  expect(status.processes.map(({ name }) => name)).toEqual([
    'host',
    'data',
    'chat and scoring',
    'training first',
  ]);
  expect(status.processes.map(({ runId }) => runId)).toEqual([null, null, null, 'abc']);
  expect(status.processes[3]!.memoryBytes).toBeGreaterThan(1e6);
  expect(status.processes[0]!.memoryBytes).toBeGreaterThan(1e6);
  expect(status.processes[1]!.memoryBytes).toBeNull();
  expect(status.disk.totalBytes).toBeGreaterThan(0);
});

describe('each check', () => {
  test('Node', () => {
    expect(checkNode('24.1.0')).toMatchObject({ status: 'ok', mend: null });
    expect(checkNode('20.20.2')).toMatchObject({
      status: 'missing',
      mend: expect.stringContaining('Node 24') as string,
    });
  });

  test('vector instructions', () => {
    expect(checkAddon(build)[1]).toMatchObject({ status: 'ok', found: 'avx2 (built: portable, avx2)' });
    expect(checkAddon({ ...build, simd: { built: ['portable'], used: 'portable' } })[1]).toMatchObject({
      status: 'warning',
    });
  });

  test('memory and disk', async () => {
    expect(checkMemory(2 ** 30, 2 ** 33)).toMatchObject({
      status: 'warning',
      found: '1.00 GiB available of 8.00 GiB',
    });
    expect(checkMemory(2 ** 33, 2 ** 34)).toMatchObject({ status: 'ok' });
    expect(await checkDisk(home, Promise.resolve(2 ** 27))).toMatchObject({ status: 'missing' });
    expect(await checkDisk(home, Promise.resolve(2 ** 30))).toMatchObject({ status: 'warning' });
    expect(await checkDisk(home, Promise.resolve(2 ** 40))).toMatchObject({ status: 'ok', mend: null });
  });

  test('home', async () => {
    expect(await checkHome(join(home, 'new'))).toMatchObject({ status: 'ok' });
    writeFileSync(join(home, 'file'), '');
    expect(await checkHome(join(home, 'file'))).toMatchObject({
      status: 'missing',
      mend: expect.stringContaining('CARAVAN_HOME') as string,
    });
  });

  test('browser', () => {
    mkdirSync(join(home, 'bin'));
    expect(checkBrowser(join(home, 'bin'), 'linux')).toMatchObject({
      status: 'warning',
      mend: expect.stringContaining('ssh -L') as string,
    });
    writeFileSync(join(home, 'bin', 'chromium'), '');
    chmodSync(join(home, 'bin', 'chromium'), 0o755);
    expect(checkBrowser(join(home, 'bin'), 'linux')).toMatchObject({ status: 'ok', found: 'chromium' });
    expect(checkBrowser('', 'darwin')).toMatchObject({ status: 'ok' });
  });
});

test('ONNX Runtime: what computes, and why the rest does not', () => {
  expect(
    checkOnnx([
      { name: 'cpu', missing: null },
      { name: 'webgpu', missing: 'No supported adapters' },
      { name: 'dml', missing: 'is for Windows' },
    ]),
  ).toEqual({
    name: 'ONNX Runtime',
    status: 'ok',
    found: 'CPU; not WebGPU (No supported adapters), not DirectML (is for Windows)',
    mend: null,
  });
  expect(checkOnnx(new CaravanError('missing_dependency', 'ONNX Runtime does not load'))).toMatchObject({
    status: 'warning',
    found: 'ONNX Runtime does not load',
  });
});
