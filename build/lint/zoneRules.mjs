// Turns the table of zones.mjs into ESLint configuration.
import importX, { createNodeResolver } from 'eslint-plugin-import-x';
import { importZones } from './zones.mjs';

/**
 * @param {string} root the folder that the table's paths are relative to
 * @param {import('./zones.mjs').Zone[]} zones
 * @returns {import('eslint').Linter.Config[]}
 */
export function zoneRules(root, zones = importZones(root)) {
  const tests = ['**/*.test.ts'];
  return [
    {
      files: ['{core,electron,renderer}/**/*.{ts,vue}'],
      ignores: tests,
      plugins: { 'import-x': importX },
      settings: {
        'import-x/resolver-next': [
          createNodeResolver({ extensions: ['.ts', '.mjs', '.js', '.vue', '.json'] }),
        ],
      },
      rules: {
        'import-x/no-restricted-paths': [
          'error',
          { basePath: root, zones: zones.filter(({ may }) => may !== undefined).map(pathZone) },
        ],
      },
    },
    ...zones
      .filter(({ never, only }) => never.length > 0 || only !== undefined)
      .map((zone) => ({
        files: [zone.folder.endsWith('.ts') ? zone.folder : `${zone.folder}/**/*.{ts,vue}`],
        ignores: tests,
        rules: { 'no-restricted-imports': ['error', { patterns: [packagePattern(zone)] }] },
      })),
    {
      files: ['{core,electron,renderer}/**/*.{ts,vue}'],
      ignores: [...tests, 'core/{data,engine}/{main,loadAddon}.ts'],
      rules: {
        'no-restricted-syntax': [
          'error',
          {
            selector:
              ':matches(Literal[value=/caravan\\.node/], TemplateElement[value.raw=/caravan\\.node/])',
            message:
              'Only the entries of the engine and data processes load the addon: a crash must end no other process.',
          },
        ],
      },
    },
  ];
}

/** Everything of ours is forbidden but the folder itself and what its row names. */
function pathZone({ folder, may }) {
  const allowed = may.length > 0 ? `itself, ${may.join(', ')}` : 'itself';
  return {
    target: folder,
    from: '.',
    except: [...new Set(['node_modules', folder, ...may])],
    message: ` ${folder} may import ${allowed} (build/lint/zones.mjs).`,
  };
}

function packagePattern({ folder, never, only }) {
  if (only !== undefined) {
    return {
      regex: `^(?!\\.{1,2}/|(${only.map(packageRegex).join('|')})(/|$))`,
      message: `${folder} may import no package but ${only.join(', ')} (build/lint/zones.mjs).`,
    };
  }
  return {
    regex: `^(${never.map(packageRegex).join('|')})(/|$)`,
    message: `${folder} may not import this package (build/lint/zones.mjs).`,
  };
}

function packageRegex(pattern) {
  return pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^/]*');
}
