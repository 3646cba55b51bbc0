// How electron-builder packs out/app (stage_app.mjs). Read by build/package.mjs, and checked by its tests.
import { join } from 'node:path';
import { out, root } from './tools.mjs';

/** Fuses of the shipped app. Its smoke tests drive an unfused build: Playwright needs the inspector. */
export const fuses = {
  runAsNode: false,
  enableCookieEncryption: true,
  enableNodeOptionsEnvironmentVariable: false,
  enableNodeCliInspectArguments: false,
  enableEmbeddedAsarIntegrityValidation: true,
  onlyLoadAppFromAsar: true,
  loadBrowserProcessSpecificV8Snapshot: false,
  grantFileProtocolExtraPrivileges: false,
};

/**
 * @param {{ electronDist?: string, electronVersion: string, fused?: boolean }} options
 *   electronDist: a folder with Electron's files, instead of a download; fused: false for a stand-in, which has no fuses
 */
export function builderConfig({ electronDist, electronVersion, fused = true }) {
  return {
    appId: 'org.caravan.workbench',
    productName: 'Caravan',
    electronVersion,
    ...(electronDist !== undefined && { electronDist }),
    directories: {
      output: join(out, 'package/desktop'),
      buildResources: join(root, 'electron'),
    },
    asar: true,
    // What the linker of the system must find lies unpacked; so do the files that the addon opens by itself.
    asarUnpack: ['**/*.node', '**/*.{dll,so,so.*,dylib}', 'demo/**'],
    // Every native package here is Node-API: nothing is built for Electron's headers.
    npmRebuild: false,
    nodeGypRebuild: false,
    // The staged packages are the whole of what run needs, and are packed as they lie.
    files: [
      '**/*',
      { from: 'node_modules', to: 'node_modules', filter: ['**/*', '!**/*.test.{js,cjs,mjs}'] },
    ],
    ...(fused && { electronFuses: fuses }),
    // The default writes --no-sandbox into the desktop entry.
    toolsets: { appimage: '1.0.3' },
    artifactName: '${name}-${version}-${os}-${arch}.${ext}',
    protocols: [{ name: 'Caravan', schemes: ['caravan'] }],
    fileAssociations: [
      {
        ext: 'recipe.yaml',
        name: 'Caravan recipe',
        mimeType: 'application/x-caravan-recipe',
        role: 'Editor',
      },
      { ext: 'run.yaml', name: 'Caravan run', mimeType: 'application/x-caravan-run', role: 'Editor' },
    ],
    linux: {
      target: ['AppImage', 'deb'],
      category: 'Science',
      icon: join(root, 'electron/icon.png'),
      executableName: 'caravan-workbench',
      executableArgs: [],
      maintainer: 'The Caravan authors <maintainers@caravan.invalid>',
    },
    deb: {
      depends: [
        'libgtk-3-0',
        'libnss3',
        'libgbm1',
        'libasound2 | libasound2t64',
        'libatk-bridge2.0-0',
        'libstdc++6',
      ],
    },
    win: { target: ['nsis'], icon: join(root, 'electron/icon.png') },
    nsis: { oneClick: false, perMachine: false, deleteAppDataOnUninstall: false },
    mac: {
      target: ['dmg', 'zip'],
      hardenedRuntime: true,
      category: 'public.app-category.developer-tools',
      icon: join(root, 'electron/icon.png'),
    },
    // No update is looked for; publishing is the release workflow's, by hand.
    publish: null,
  };
}
