// Who may import whom, as a table. eslint.config.js turns it into rules, zones.test.ts plants violations against it.
// Every folder may import itself; what is not named here it may not import. docs/architecture.md has the reasons.
import { readdirSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';

const uiPackages = [
  'vue',
  'pinia',
  'vue-router',
  'reka-ui',
  'uplot',
  'shiki',
  'markdown-it',
  '@vueuse/*',
  '@tanstack/*',
];
const nativePackages = ['better-sqlite3', '@duckdb/*', 'onnxruntime-*'];
const nodeModules = ['node:*', ...builtinModules.filter((name) => !name.startsWith('_'))];

/**
 * @typedef {object} Zone
 * @property {string} folder the folder or file that the row is about, relative to the root
 * @property {string[]} [may] the other folders and files of ours that it may import; absent: as its folder's row says
 * @property {string[]} never the packages that they may not import, as patterns
 * @property {string[]} [only] the only packages that they may import; `never` is moot then
 */

/** @param {string} root @returns {Zone[]} */
export function importZones(root) {
  const services = foldersIn(root, 'core/services');
  const features = foldersIn(root, 'renderer/features');
  const host = [...uiPackages, 'electron'];
  const shared = ['core/shared'];
  // The host's side of the other processes: what speaks to them, never what runs inside them.
  const processClients = ['data', 'engine', 'hub'].flatMap((name) =>
    ['client.ts', 'protocol.ts', 'supervision.ts', 'AddonTypes.ts'].map((file) => `core/${name}/${file}`),
  );
  return [
    { folder: 'core/shared', may: [], never: [], only: ['zod'] },
    { folder: 'core/store', may: shared, never: [...host, '@duckdb/*', 'onnxruntime-*'] },
    { folder: 'core/demo', may: shared, never: [...host, ...nativePackages] },
    ...services.map((name) => ({
      folder: `core/services/${name}`,
      // One service reaches another only through what its index.ts exports.
      may: [
        ...shared,
        'core/store',
        ...processClients,
        ...services.filter((other) => other !== name).map((other) => `core/services/${other}/index.ts`),
      ],
      never: [...host, ...nativePackages],
    })),
    // Conversations to tokens: for the processes that load the addon.
    {
      folder: 'core/prompt',
      may: [...shared, 'core/engine/AddonTypes.ts'],
      never: [...host, ...nativePackages],
    },
    // Starting and hearing other processes: both ends of what core/engine and core/data say.
    { folder: 'core/process', may: shared, never: [...host, ...nativePackages] },
    // The file format: read by all that meet such a file, before ONNX Runtime does.
    { folder: 'core/onnx/format', may: shared, never: [...host, ...nativePackages] },
    {
      folder: 'core/onnx/export',
      may: [...shared, 'core/onnx/format', 'core/engine/AddonTypes.ts'],
      never: [...host, ...nativePackages],
    },
    {
      folder: 'core/onnx/session',
      may: [...shared, 'core/onnx/format', 'core/engine/AddonTypes.ts'],
      never: [...host, 'better-sqlite3', '@duckdb/*'],
    },
    {
      folder: 'core/engine',
      may: [...shared, 'core/prompt', 'core/process', 'core/onnx'],
      never: [...host, ...nativePackages],
    },
    {
      folder: 'core/data',
      may: [
        ...shared,
        'core/prompt',
        'core/process',
        'core/engine/AddonTypes.ts',
        'core/engine/loadAddon.ts',
        'core/onnx/format',
      ],
      never: [...host, 'better-sqlite3', 'onnxruntime-*'],
    },
    { folder: 'core/data/client.ts', never: [...host, ...nativePackages] },
    // Speaks to strangers: it loads nothing native and knows no service.
    { folder: 'core/hub', may: [...shared, 'core/process'], never: [...host, ...nativePackages] },
    {
      folder: 'core/host',
      may: [
        ...shared,
        'core/store',
        'core/services',
        'core/process',
        ...processClients,
        'core/engine/createEngines.ts',
        'core/onnx/export',
        'core/demo',
      ],
      never: [...host, ...nativePackages],
    },
    {
      folder: 'core/cli',
      may: ['core/shared', 'core/host', 'core/demo'],
      never: [...host, ...nativePackages],
    },
    {
      folder: 'electron/main',
      may: ['core/host', 'core/shared', 'core/process'],
      never: [...uiPackages, ...nativePackages],
    },
    { folder: 'electron/preload', may: ['core/shared/contract'], never: [], only: ['electron'] },
    { folder: 'renderer', may: shared, never: ['electron', ...nativePackages, 'ws', ...nodeModules] },
    // Inside the page: a feature uses all its siblings but no other feature; what is shared knows no store.
    ...features.map((name) => ({
      folder: `renderer/features/${name}`,
      may: [
        ...shared,
        'renderer/stores',
        'renderer/components',
        'renderer/composables',
        'renderer/charts',
        'renderer/app/theme',
      ],
      never: [],
    })),
    { folder: 'renderer/stores', may: [...shared, 'renderer/composables'], never: [] },
    ...['components', 'composables', 'charts'].map((name) => ({
      folder: `renderer/${name}`,
      may: [
        ...shared,
        'renderer/components',
        'renderer/composables',
        'renderer/charts',
        'renderer/app/theme',
      ],
      never: [],
    })),
  ];
}

/** The same for #include lines under native/: a pattern of the files, and one of the headers that they may not name. */
export const nativeZones = [
  { folder: 'native/addon', never: /^kernels\//, because: 'the addon speaks to the engine alone' },
  {
    folder: 'native/engine',
    never: /^(napi|node_api|js_native_api)|^addon\//,
    because: 'the engine knows no JavaScript',
  },
  {
    folder: 'native/kernels',
    never: /^(engine|addon)\/|^(napi|node_api)/,
    because: 'a kernel knows pointers and sizes only',
  },
];

/**
 * @param {string} file relative to the root
 * @param {string} text its content
 * @returns {string[]} one message per #include that crosses a border
 */
export function nativeViolations(file, text) {
  const zone = nativeZones.find(({ folder }) => file.startsWith(`${folder}/`));
  if (zone === undefined) return [];
  return text.split('\n').flatMap((line, index) => {
    const header = /^\s*#\s*include\s*["<]([^">]+)[">]/.exec(line)?.[1];
    if (header === undefined || !zone.never.test(header)) return [];
    return [`${file}:${index + 1}: ${zone.folder} may not include ${header}: ${zone.because}`];
  });
}

function foldersIn(root, folder) {
  try {
    const entries = readdirSync(join(root, folder), { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
}
