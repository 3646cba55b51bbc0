/** What native/test/recorded holds is still what PyTorch, transformers and peft compute. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { needs } from './support/skip.ts';

const script = fileURLToPath(new URL('../native/test/record_cases.py', import.meta.url));

test.runIf(needs('torch', 'recorded cases against PyTorch'))('no recorded case is stale', () => {
  const { status, stdout, stderr } = spawnSync('python3', [script, '--check'], { encoding: 'utf8' });
  expect(stdout + stderr).not.toContain('stale:');
  expect(stdout.match(/: as recorded$/gm)).toHaveLength(40);
  expect(status).toBe(0);
});

test.runIf(needs('torch', 'published layouts against PyTorch'))('no published layout is stale', () => {
  const recorder = fileURLToPath(new URL('../native/test/record_published.py', import.meta.url));
  const { status, stderr } = spawnSync('python3', [recorder, '--check'], { encoding: 'utf8' });
  expect(stderr).not.toContain('stale:');
  expect(status).toBe(0);
});
