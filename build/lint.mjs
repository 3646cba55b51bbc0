// ESLint (with the import zones), the #include zones of the native part, and the format of every file.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { format } from './format.mjs';
import { nativeViolations } from './lint/zones.mjs';
import { projectFiles, root, runCommand } from './tools.mjs';

const [eslint, formatted] = await Promise.all([
  runCommand('eslint', [
    '.',
    '--max-warnings=0',
    '--cache',
    '--cache-location=out/eslint/',
    '--cache-strategy=content',
  ]),
  format({ check: true }),
]);
const crossings = projectFiles('native/*').flatMap((file) =>
  nativeViolations(file, readFileSync(join(root, file), 'utf8')),
);
for (const crossing of crossings) process.stderr.write(`${crossing}\n`);
if (formatted !== 0) process.stderr.write('Run: npm run format\n');
process.exitCode = eslint.code || formatted || (crossings.length > 0 ? 1 : 0);
