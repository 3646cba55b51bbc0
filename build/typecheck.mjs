// Type-checks every project of tsconfig.json; those with Vue files by vue-tsc. Declarations land in out/types, where
// the next run finds what it need not check again.
import { runCommand } from './tools.mjs';

const plain = await runCommand('tsc', ['-b', 'core/shared', 'core', 'electron', 'tests', '--pretty']);
const vue = await runCommand('vueTsc', ['-b', 'renderer', 'renderer/tsconfig.test.json', '--pretty']);
process.exitCode = plain.code || vue.code;
