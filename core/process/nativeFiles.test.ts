import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkNativeFiles, nativeFileList } from './nativeFiles.ts';

function shipped() {
  const dir = mkdtempSync(join(tmpdir(), 'native-'));
  writeFileSync(join(dir, 'a.node'), 'machine code');
  const sha256 = createHash('sha256').update('machine code').digest('hex');
  writeFileSync(join(dir, nativeFileList), JSON.stringify({ 'a.node': sha256 }));
  return dir;
}

test('what was shipped is let through; a checkout, which has no list, too', async () => {
  await checkNativeFiles(shipped());
  await checkNativeFiles(mkdtempSync(join(tmpdir(), 'native-')));
});

test('a file that was changed, or is gone, is named', async () => {
  const changed = shipped();
  writeFileSync(join(changed, 'a.node'), 'machine cude');
  await expect(checkNativeFiles(changed)).rejects.toThrow(/was changed since it was shipped: .*a\.node/);
  const gone = shipped();
  rmSync(join(gone, 'a.node'));
  await expect(checkNativeFiles(gone)).rejects.toThrow(/is missing: .*a\.node/);
});
