import { createZstdDecompress, type ZstdDecompress } from 'node:zlib';
import { DamagedFile, pieces } from './pieces.ts';

const frameMagic = 0xfd2fb528;
const lastBlock = 1;

/**
 * Unpacks Zstandard. Node's decompressor ends in silence after the first frame, and files written by several threads, by
 * appending or with a seek table hold many: so frames are told apart here and unpacked one by one.
 */
export async function* unpackZstd(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new ByteSource(bytes);
  for (;;) {
    const start = await input.take(4, true);
    if (start === null) return;
    const magic = start.readUInt32LE();
    if ((magic & 0xfffffff0) === 0x184d2a50) {
      await input.skip((await input.takeWhole(4)).readUInt32LE());
      continue;
    }
    if (magic !== frameMagic)
      throw new DamagedFile('the zstd archive is damaged: no frame begins where one must');
    yield* unpackFrame(input, start);
  }
}

async function* unpackFrame(input: ByteSource, start: Buffer): AsyncGenerator<Buffer> {
  const unpacker = createZstdDecompress({ chunkSize: 1 << 18 });
  // Backpressure: the frame is fed as its text is taken.
  const feeding = feedFrame(input, start, unpacker);
  feeding.catch((error: unknown) => unpacker.destroy(error as Error));
  try {
    yield* pieces(unpacker);
    await feeding;
  } catch (error) {
    if (error instanceof DamagedFile) throw error;
    if ((error as NodeJS.ErrnoException).code?.startsWith('ZSTD_'))
      throw new DamagedFile(`the zstd archive is damaged or cut short: ${(error as Error).message}`);
    throw error;
  } finally {
    unpacker.destroy();
  }
}

/** Walks the frame's blocks (RFC 8878, 3.1.1) to where it ends. */
async function feedFrame(input: ByteSource, start: Buffer, unpacker: ZstdDecompress): Promise<void> {
  // A destroyed stream forgets its callbacks.
  const closed = new Promise<void>((resolve) => unpacker.once('close', () => resolve()));
  const write = (pieces: Buffer[]) =>
    Promise.race([
      closed,
      new Promise<void>((resolve) => unpacker.write(Buffer.concat(pieces), () => resolve())),
    ]);
  const descriptor = await input.takeWhole(1);
  const flags = descriptor[0]!;
  const singleSegment = (flags & 0x20) !== 0;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][flags >> 6]!;
  const dictionaryBytes = [0, 1, 2, 4][flags & 3]!;
  const header = await input.takeWhole((singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes);
  await write([start, descriptor, header]);
  while (!unpacker.destroyed) {
    const block = await input.takeWhole(3);
    const fields = block.readUIntLE(0, 3);
    // A block of one repeated byte holds that byte alone.
    const stored = ((fields >> 1) & 3) === 1 ? 1 : fields >> 3;
    await write([block, await input.takeWhole(stored)]);
    if (fields & lastBlock) break;
  }
  if (flags & 4) await write([await input.takeWhole(4)]);
  unpacker.end();
}

class ByteSource {
  readonly #bytes: AsyncIterator<Buffer>;
  #piece: Buffer = Buffer.alloc(0);

  constructor(bytes: AsyncIterable<Buffer>) {
    this.#bytes = bytes[Symbol.asyncIterator]();
  }

  /** Exactly so many bytes; null at the end of the file, where that is allowed. */
  async take(length: number, mayEnd: boolean): Promise<Buffer | null> {
    while (this.#piece.length < length) {
      const next = await this.#bytes.next();
      if (next.done) {
        if (this.#piece.length === 0 && mayEnd) return null;
        throw new DamagedFile('the zstd archive is cut short');
      }
      this.#piece = Buffer.concat([this.#piece, next.value]);
    }
    const taken = this.#piece.subarray(0, length);
    this.#piece = this.#piece.subarray(length);
    return taken;
  }

  async takeWhole(length: number): Promise<Buffer> {
    return (await this.take(length, false))!;
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0;) {
      const step = Math.min(left, 1 << 16);
      await this.takeWhole(step);
      left -= step;
    }
  }
}
