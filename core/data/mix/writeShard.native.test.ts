import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { needs } from '../../../tests/support/skip.ts';
import { loadAddon } from '../../engine/loadAddon.ts';
import { TokenStore } from './tokenStore.ts';
import { writeShard } from './writeShard.ts';

const dir = mkdtempSync(join(tmpdir(), 'caravan-shard-'));
afterAll(() => rmSync(dir, { recursive: true }));

describe.runIf(needs('addon'))('a shard written row by row', () => {
  test('has the bytes of the addon’s, in whatever order its rows come', async () => {
    const rows = [
      [1, 2, 3, 31_999],
      [5, 6],
      [7, 8, 9],
    ];
    const store = new TokenStore(join(dir, 'tokens'), 10);
    for (const [at, ids] of rows.entries())
      store.add(
        at * 3,
        Int32Array.from(ids),
        Uint8Array.from(ids, (_, i) => (i > 0 ? 1 : 0)),
      );
    store.flush();
    const metadata = { tokenizer: 'abc', template: 'camelidae', split: 'train', seqLen: '2048' };
    const order = [2, 0, 1, 0];
    const sources = ['ünï "quoted"', 'b'];
    const source = Int32Array.of(0, 1, 0, 1);
    await writeShard(
      join(dir, 'ours'),
      { ids: Float64Array.from(order, (row) => row * 3), source, sources, metadata },
      store,
    );
    store.close();
    const all = order.map((row) => rows[row]!);
    await loadAddon().writeTokenShard(join(dir, 'theirs'), {
      ids: Int32Array.from(all.flat()),
      targets: Uint8Array.from(all.flatMap((ids) => ids.map((_, i) => (i > 0 ? 1 : 0)))),
      offsets: Float64Array.of(0, 3, 7, 9, 13),
      source,
      sources,
      metadata,
    });
    expect(readFileSync(join(dir, 'ours')).equals(readFileSync(join(dir, 'theirs')))).toBe(true);
  });
});
