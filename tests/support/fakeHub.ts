import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Hub } from '../../core/services/hub/index.ts';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import { parseHubReference } from '../../core/shared/hub/hubReference.ts';

export interface FakeHub extends Hub {
  readonly asked: Parameters<Hub['fetch']>[0][];
}

/** A hub whose repositories are given by name, with their files; it writes them below `root` as a download would. */
export function createFakeHub(root = '', repositories: Record<string, Record<string, string>> = {}): FakeHub {
  const asked: FakeHub['asked'] = [];
  return {
    asked,
    forget(path) {
      rmSync(path, { recursive: true, force: true });
      return Promise.resolve();
    },
    fetch(what) {
      asked.push(what);
      const reference = parseHubReference(what.reference);
      const content = repositories[reference.id];
      if (!content) throw new CaravanError('not_found', `there is no ${what.kind} '${reference.id}'`);
      const commit = 'c'.repeat(40);
      const dir = join(root, 'hub', `${what.kind}s`, reference.id.replace('/', '--'), commit);
      const files = Object.entries(content).map(([path, text]) => {
        mkdirSync(dirname(join(dir, path)), { recursive: true });
        if (!existsSync(join(dir, path))) writeFileSync(join(dir, path), text);
        return { path, size: text.length, hash: { kind: 'git' as const, hex: '0'.repeat(40) } };
      });
      const bytes = files.reduce((sum, { size }) => sum + size, 0);
      return Promise.resolve({
        plan: {
          kind: what.kind,
          origin: { ...reference, endpoint: 'https://huggingface.co', commit },
          gated: false,
          files,
          bytes,
          presentBytes: 0,
          leftOut: [],
          freeDiskBytes: 2 ** 40,
          dir,
        },
        files: files.map(({ path }) => join(dir, path)),
      });
    },
  };
}
