import { statfs } from 'node:fs/promises';
import { cpus, loadavg, totalmem } from 'node:os';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { CallResult } from '../../shared/contract/contract.ts';
import {
  checkAddon,
  checkBrowser,
  checkDisk,
  checkHome,
  checkMemory,
  checkNode,
  checkProcessor,
  checkSqlite,
} from './checks.ts';
import { checkOnnx } from './onnxChecks.ts';
import { checkCuda, findCudaTools } from './cudaChecks.ts';
import { processMemory } from './processMemory.ts';
import type { SystemDeps, SystemService } from './systemTypes.ts';

/** What the machine has, and what Caravan's processes take of it. */
export function createSystemService(deps: SystemDeps): SystemService {
  const { home, version, sqliteVersion, data, engines, hubProcess, trainingProcesses } = deps;
  const { inference } = engines;
  type Device = CallResult<'doctor'>['devices'][number];

  /** What Node alone knows: enough for a status line, and all there is where the engine does not load. */
  function processor(): Device {
    const all = cpus();
    return {
      device: 'cpu',
      kind: 'cpu',
      name: all[0]?.model.trim() ?? 'unknown',
      units: all.length,
      totalMemoryBytes: totalmem(),
      freeMemoryBytes: process.availableMemory(),
    };
  }

  return {
    handlers: {
      async doctor() {
        const build = await inference.buildInfo().catch((error: unknown) => CaravanError.from(error));
        const devices =
          build instanceof CaravanError
            ? [processor()]
            : (await inference.devices()).map(
                ({ device, kind, name, units, totalMemoryBytes, freeMemoryBytes }) => ({
                  device,
                  kind,
                  name,
                  units,
                  totalMemoryBytes,
                  freeMemoryBytes,
                }),
              );
        const cuda = build instanceof CaravanError ? null : await inference.cudaStatus();
        const onnx =
          build instanceof CaravanError
            ? null
            : await inference.onnxProviders().catch((error: unknown) => CaravanError.from(error));
        const writable = await checkHome(home);
        return {
          checks: [
            checkNode(),
            ...checkAddon(build),
            checkProcessor(),
            ...(cuda === null ? [] : checkCuda(cuda, findCudaTools())),
            ...(onnx === null ? [] : [checkOnnx(onnx)]),
            checkMemory(),
            writable,
            ...(writable.status === 'ok' ? [await checkDisk(home)] : []),
            checkSqlite(sqliteVersion),
            checkBrowser(),
          ],
          devices,
          cuda,
          versions: {
            caravan: version,
            node: process.versions.node,
            sqlite: sqliteVersion,
            ...(build instanceof CaravanError ? {} : { engine: build.buildId, compiler: build.compiler }),
          },
        };
      },
      async systemStatus() {
        const { bavail, blocks, bsize } = await statfs(home);
        const processes = [
          { name: 'host', pid: process.pid },
          ...(data.pid === null ? [] : [{ name: 'data', pid: data.pid }]),
          ...(hubProcess.pid === null ? [] : [{ name: 'downloads', pid: hubProcess.pid }]),
          ...(inference.pid === null ? [] : [{ name: 'chat and scoring', pid: inference.pid }]),
          ...trainingProcesses(),
        ];
        return {
          devices: [processor()],
          loadAverage: loadavg()[0] ?? 0,
          memory: { totalBytes: totalmem(), freeBytes: process.availableMemory() },
          disk: { totalBytes: blocks * bsize, freeBytes: bavail * bsize },
          processes: await Promise.all(
            processes.map(async (one) => ({
              runId: null,
              ...one,
              memoryBytes: await processMemory(one.pid),
            })),
          ),
        };
      },
    },
    close: () => Promise.resolve(),
  };
}
