import { ESLint } from 'eslint';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import tseslint from 'typescript-eslint';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { zoneRules } from './zoneRules.mjs';
import { importZones, nativeViolations, nativeZones } from './zones.mjs';

const checkout = fileURLToPath(new URL('../..', import.meta.url));

// [file, the import it holds, whether lint must refuse it]
const planted: [file: string, line: string, refused: boolean][] = [
  ['core/shared/run/plan.ts', "import '../../store/open.ts';", true],
  ['core/shared/run/plan.ts', "import 'node:fs';", true],
  ['core/shared/run/plan.ts', "import 'fs/promises';", true],
  ['core/shared/run/plan.ts', "import type { WebSocket } from 'ws';", true],
  ['core/shared/run/plan.ts', "import 'zod';", false],
  ['core/shared/run/plan.ts', "import '../contract/contract.ts';", false],
  ['core/store/open.ts', "import '../shared/contract/contract.ts';", false],
  ['core/store/open.ts', "import 'better-sqlite3';", false],
  ['core/store/open.ts', "import '../host/connect.ts';", true],
  ['core/store/open.ts', "import 'electron';", true],
  ['core/services/training/TrainingService.ts', "import '../datasets/index.ts';", false],
  ['core/services/training/TrainingService.ts', "import '../datasets/rows.ts';", true],
  ['core/services/training/TrainingService.ts', "import '../../store/open.ts';", false],
  ['core/services/training/TrainingService.ts', "import '../../data/client.ts';", false],
  ['core/services/training/TrainingService.ts', "import '../../data/database.ts';", true],
  ['core/services/training/TrainingService.ts', "import '../../host/connect.ts';", true],
  ['core/services/training/TrainingService.ts', "import '@duckdb/node-api';", true],
  ['core/services/training/TrainingService.ts', "import 'better-sqlite3';", true],
  ['core/services/training/TrainingService.ts', "import { shallowRef } from 'vue';", true],
  [
    'core/services/training/TrainingService.ts',
    "export const addon = '../../out/native/caravan.node';",
    true,
  ],
  ['core/engine/main.ts', "export const addon = '../../out/native/caravan.node';", false],
  ['core/engine/main.ts', "import '../services/training/TrainingService.ts';", true],
  ['core/engine/main.ts', "import 'onnxruntime-node';", true],
  ['core/data/database.ts', "import '@duckdb/node-api';", false],
  ['core/data/database.ts', "import 'onnxruntime-node';", true],
  ['core/data/client.ts', "import '@duckdb/node-api';", true],
  ['core/onnx/export/graph.ts', "import 'onnxruntime-node';", true],
  ['core/onnx/session/session.ts', "import 'onnxruntime-node';", false],
  ['core/host/connect.ts', "import '../data/database.ts';", true],
  ['core/host/connect.ts', "import '../onnx/session/session.ts';", true],
  ['core/host/connect.ts', "import '../services/training/TrainingService.ts';", false],
  ['core/cli/main.ts', "import '../host/connect.ts';", false],
  ['core/cli/main.ts', "import '../services/training/TrainingService.ts';", true],
  ['core/cli/main.ts', "const lazily = () => import('../store/open.ts'); void lazily;", true],
  ['electron/main/main.ts', "import 'electron';", false],
  ['electron/main/main.ts', "import '../../core/services/training/TrainingService.ts';", true],
  ['electron/main/main.ts', "import '../../renderer/stores/runStore.ts';", true],
  ['electron/preload/preload.ts', "import '../../core/shared/contract/contract.ts';", false],
  ['electron/preload/preload.ts', "import '../../core/shared/run/plan.ts';", true],
  ['electron/preload/preload.ts', "import 'zod';", true],
  ['renderer/app/shell.ts', "import '../../core/shared/run/plan.ts';", false],
  ['renderer/app/shell.ts', "import '../../core/host/connect.ts';", true],
  ['renderer/app/shell.ts', "import 'node:path';", true],
  ['renderer/app/shell.ts', "import 'path';", true],
  ['renderer/app/shell.ts', "import 'electron';", true],
  ['renderer/features/chat/chatPane.ts', "import '../run/runPane.ts';", true],
  ['renderer/features/chat/chatPane.ts', "import '../../stores/runStore.ts';", false],
  ['renderer/features/chat/chatPane.ts', "import '../../../core/store/open.ts';", true],
  ['renderer/components/button.ts', "import '../stores/runStore.ts';", true],
  ['renderer/charts/series.ts', "import 'uplot';", false],
];

describe('import zones', () => {
  let folder: string;
  let eslint: ESLint;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'caravan-zones-'));
    const targets = [
      'core/shared/contract/contract.ts',
      'core/services/datasets/index.ts',
      'core/services/datasets/rows.ts',
    ];
    targets.push('renderer/features/run/runPane.ts', 'renderer/stores/runStore.ts');
    for (const file of [...planted.map(([name]) => name), ...targets]) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), 'export {};\n');
    }
    eslint = new ESLint({
      cwd: folder,
      overrideConfigFile: true,
      overrideConfig: [
        { files: ['**/*.ts'], languageOptions: { parser: tseslint.parser as never } },
        ...zoneRules(folder, importZones(folder)),
      ],
    });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each(planted)('%s with %s: refused %s', async (file, line, refused) => {
    const [result] = await eslint.lintText(`${line}\n`, { filePath: join(folder, file) });
    const messages = result!.messages.map(({ ruleId, message }) => `${ruleId}: ${message}`);
    expect(messages.length > 0, messages.join('\n')).toBe(refused);
  });

  test('the checkout is linted by these very rules', async () => {
    const config = (await new ESLint({ cwd: checkout }).calculateConfigForFile(
      'core/shared/contract/contract.ts',
    )) as {
      rules: Record<string, unknown[]>;
    };
    const [, { zones }] = config.rules['import-x/no-restricted-paths'] as [
      number,
      { zones: { target: string }[] },
    ];
    expect(zones.map(({ target }) => target)).toEqual(
      expect.arrayContaining(['core/shared', 'core/host', 'renderer']),
    );
    expect(config.rules['no-restricted-imports']).toBeDefined();
    expect(config.rules['no-restricted-syntax']).toBeDefined();
  });

  test('every folder of core has a row', () => {
    const rows = importZones(checkout).map((zone) => zone.folder);
    const folders = readdirSync(join(checkout, 'core'), { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    );
    expect(folders.length).toBeGreaterThan(4);
    for (const { name } of folders) {
      expect(
        rows.some((row) => `${row}/`.startsWith(`core/${name}/`)),
        `core/${name}`,
      ).toBe(true);
    }
  });
});

describe('include zones', () => {
  test.each([
    ['native/addon/trainer.cpp', '#include "kernels/exec.h"', 1],
    ['native/addon/trainer.cpp', '#include "engine/train/trainer.h"\n#include <napi.h>', 0],
    ['native/engine/io/safetensors.cpp', '#include <vector>\n  #  include <napi.h>', 1],
    ['native/engine/io/safetensors.cpp', '#include "kernels/dtype.h"', 0],
    ['native/kernels/cpu/norm.cpp', '#include "engine/model/model.h"', 1],
    ['native/kernels/cpu/norm.cpp', '#include "kernels/norm.h"', 0],
    ['native/test/norm_test.cpp', '#include "engine/model/model.h"', 0],
  ])('%s with %j: %i refused', (file, text, count) => {
    expect(nativeViolations(file, text)).toHaveLength(count);
  });

  test('each row names a folder that exists', () => {
    expect(nativeZones).toHaveLength(3);
    for (const { folder } of nativeZones) expect(existsSync(join(checkout, folder)), folder).toBe(true);
    expect(readFileSync(join(checkout, 'build/lint.mjs'), 'utf8')).toContain('nativeViolations');
  });
});
