// Formats everything that Git would track: Prettier for what it knows, clang-format for C++ and CUDA.
// `--check` changes nothing and fails where something would change.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectFiles, root, run, runCommand } from './tools.mjs';

/** @returns {Promise<number>} 0 if all is formatted */
export async function format({ check }) {
  const pretty = projectFiles(
    '*.ts',
    '*.mjs',
    '*.js',
    '*.cjs',
    '*.vue',
    '*.css',
    '*.html',
    '*.json',
    '*.yaml',
    '*.yml',
  );
  const prettier = await runCommand('prettier', [
    check ? '--check' : '--write',
    '--log-level=warn',
    ...pretty,
  ]);
  const sources = projectFiles(
    'native/*.cpp',
    'native/*.h',
    'native/*.inl',
    'native/*.cu',
    'native/*.cuh',
  ).filter((file) => !file.startsWith('native/third_party/'));
  const clangFormat = clangFormatBinary();
  if (clangFormat === undefined) {
    process.stdout.write(
      `SKIPPED format of C++: no clang-format 15 for ${process.platform}-${process.arch} comes with npm\n`,
    );
    return prettier.code;
  }
  const mode = check ? ['--dry-run', '-Werror', '--ferror-limit=1'] : ['-i'];
  const native = sources.length === 0 ? { code: 0 } : await run(clangFormat, [...mode, ...sources]);
  return prettier.code || native.code;
}

/** One pinned binary, since every release of clang-format formats a little differently. */
function clangFormatBinary() {
  const name = {
    linux: 'linux_x64/clang-format',
    darwin: 'darwin_x64/clang-format',
    win32: 'win32/clang-format.exe',
  };
  const binary = join(root, 'node_modules/clang-format/bin', name[process.platform] ?? 'none');
  return existsSync(binary) && !(process.platform === 'linux' && process.arch !== 'x64') ? binary : undefined;
}

if (import.meta.main) process.exitCode = await format({ check: process.argv.includes('--check') });
