/** Writes a token shard row by row, the same bytes as the addon's `writeTokenShard`, which wants all of it in memory. */
import { open } from 'node:fs/promises';
import type { TokenStore } from './tokenStore.ts';

/** Tokens handed to the file at a time. */
const pieceTokens = 1 << 20;

export interface ShardRows {
  /** Row ids in the order of the shard. */
  ids: Float64Array;
  source: Int32Array;
  sources: string[];
  metadata: Record<string, string>;
}

export async function writeShard(
  path: string,
  { ids, source, sources, metadata }: ShardRows,
  store: TokenStore,
): Promise<void> {
  const offsets = new BigInt64Array(ids.length + 1);
  let total = 0;
  for (const [row, id] of ids.entries()) offsets[row + 1] = BigInt((total += store.lengthOf(id)));
  const all = { ...metadata, format: 'caravan-tokens-1', sources: JSON.stringify(sources) };
  const header: Record<string, unknown> = {
    __metadata__: Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  // Widest types first, so that each is aligned; as the addon orders them.
  let at = 0;
  const tensor = (name: string, dtype: string, length: number, width: number) => {
    header[name] = { dtype, shape: [length], data_offsets: [at, (at += length * width)] };
    return at - length * width;
  };
  const places = {
    offsets: tensor('offsets', 'I64', offsets.length, 8),
    ids: tensor('ids', 'I32', total, 4),
    source: tensor('source', 'I32', ids.length, 4),
    targets: tensor('targets', 'U8', total, 1),
  };
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const begin = 8 + padded.length;
  const file = await open(path, 'w');
  try {
    const put = async (array: ArrayBufferView, place: number) => {
      const bytes = Buffer.from(array.buffer, array.byteOffset, array.byteLength);
      for (let done = 0; done < bytes.length;)
        done += (await file.write(bytes, done, bytes.length - done, place + done)).bytesWritten;
    };
    await put(length, 0);
    await put(padded, 8);
    await put(offsets, begin + places.offsets);
    await put(source, begin + places.source);
    let written = 0;
    for (let row = 0; row < ids.length;) {
      let end = row;
      let tokens = 0;
      do tokens += store.lengthOf(ids[end++]!);
      while (end < ids.length && tokens + store.lengthOf(ids[end]!) <= pieceTokens);
      const piece = { ids: new Int32Array(tokens), targets: new Uint8Array(tokens) };
      for (let filled = 0; row < end; row++) filled = store.read(ids[row]!, piece.ids, piece.targets, filled);
      await put(piece.ids, begin + places.ids + written * 4);
      await put(piece.targets, begin + places.targets + written);
      written += tokens;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}
