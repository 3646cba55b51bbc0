// Makes the archive for servers, out/package/caravan-VERSION-linux-ARCH.tar.xz: Node 24, the packages that run needs, the
// addon, the page and the command. It runs where nothing but glibc and libstdc++ are. `npm run package:server`, or with
// `-- --folder` only the folder that would be packed.
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pinnedNode } from '../bin/pinnedNode.mjs';
import { buildNative } from './native.mjs';
import { buildRenderer } from './renderer.mjs';
import { formatSeconds, out, root, run } from './tools.mjs';

/** What of the checkout runs, beside its packages; what is generated keeps its place below out/. */
const sources = [
  'bin',
  'core',
  'demo',
  'LICENSE',
  'NOTICE',
  'CHANGELOG.md',
  'docs/user-guide.md',
  'docs/server.md',
];
const generated = ['out/renderer', 'out/native/caravan.node'];

/** Of these packages most is for other platforms, or source. What is kept is kept by name. */
const keptOf = {
  'better-sqlite3': ['lib', `prebuilds/${process.platform}-${process.arch}.node`],
  'onnxruntime-node': ['dist', `bin/napi-v6/${process.platform}/${process.arch}`],
  // Its headers and its tools are for building the addon.
  'node-addon-api': [],
  'node-api-headers': [],
};
const always = /^(package\.json|licen[cs]e.*|notice.*|thirdpartynotices.*)$/i;

/** @returns {string[]} the folders of the packages that package-lock.json says are needed at run time and that npm installed */
export function runtimePackages() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  return Object.entries(packages)
    .filter(([path, { dev, devOptional }]) => path.startsWith('node_modules/') && !dev && !devOptional)
    .map(([path]) => path)
    .filter(
      (path) =>
        existsSync(join(root, path, 'package.json')) && !/^node-(linux|darwin|win)-/.test(basename(path)),
    );
}

/** @returns {Promise<{ folder: string, name: string }>} */
export async function stageServer() {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const node = pinnedNode();
  if (node === undefined) throw new Error('the pinned Node is not installed: npm ci');
  const native = await buildNative({ quiet: true });
  if (native.code !== 0) throw new Error(`the addon did not build:\n${native.output}`);
  if ((await buildRenderer()) !== 0) throw new Error('the page did not build');

  const name = `caravan-${version}-${process.platform}-${process.arch}`;
  const folder = join(out, 'package', name);
  rmSync(folder, { recursive: true, force: true });
  const app = join(folder, 'lib/caravan');
  for (const path of [...sources, ...generated])
    cpSync(join(root, path), join(app, path), {
      recursive: true,
      filter: (file) => !/\.(test|e2e|long)\.ts$|tsconfig(\.\w+)?\.json$/.test(file),
    });
  // The scripts of a checkout have nothing to work on here.
  const {
    scripts: _scripts,
    devDependencies: _dev,
    optionalDependencies: _optional,
    ...description
  } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  writeFileSync(join(app, 'package.json'), `${JSON.stringify(description, null, 2)}\n`);
  for (const path of runtimePackages()) copyPackage(path, app);

  const binary = join(folder, 'lib/node');
  mkdirSync(dirname(binary), { recursive: true });
  copyFileSync(node, binary);
  copyFileSync(join(dirname(dirname(node)), 'LICENSE'), join(folder, 'lib/node-LICENSE'));
  for (const file of [binary, join(app, 'out/native/caravan.node')])
    if ((await run('strip', ['--strip-unneeded', file], { quiet: true })).code !== 0)
      process.stderr.write(
        `${basename(file)} keeps its symbols: strip (apt-get install -y binutils) is missing\n`,
      );
  const command = join(folder, 'bin/caravan');
  mkdirSync(dirname(command), { recursive: true });
  writeFileSync(
    command,
    '#!/bin/sh\n# Finds its own Node through whatever link it was called by.\n' +
      'lib=$(dirname "$(dirname "$(readlink -f "$0")")")/lib\nexec "$lib/node" "$lib/caravan/bin/caravan.mjs" "$@"\n',
  );
  chmodSync(command, 0o755);
  copyFileSync(join(root, 'docs/server.md'), join(folder, 'README.md'));
  return { folder, name };
}

export function copyPackage(path, app) {
  const kept = keptOf[basename(path)];
  const from = join(root, path);
  const top =
    kept === undefined ? readdirSync(from) : readdirSync(from).filter((entry) => always.test(entry));
  for (const entry of [...top, ...(kept ?? [])]) {
    if (entry === 'node_modules' || !existsSync(join(from, entry))) continue;
    cpSync(join(from, entry), join(app, path, entry), {
      recursive: true,
      dereference: true,
      filter: (file) => !/\.(map|md|markdown|[cm]?ts)$/i.test(file) || always.test(basename(file)),
    });
  }
}

if (import.meta.main) {
  const started = Date.now();
  const { folder, name } = await stageServer();
  if (process.argv.includes('--folder')) process.stdout.write(`${folder}\n`);
  else {
    const archive = `${folder}.tar.xz`;
    const packed = await run(
      'tar',
      [
        '-C',
        dirname(folder),
        '--owner=0',
        '--group=0',
        '--sort=name',
        '-I',
        'xz -T0 -6',
        '-cf',
        archive,
        name,
      ],
      { quiet: true },
    );
    if (packed.code !== 0) throw new Error(packed.output);
    process.stdout.write(`${archive}\n`);
    process.stderr.write(`Packed in ${formatSeconds(Date.now() - started)}.\n`);
  }
}
