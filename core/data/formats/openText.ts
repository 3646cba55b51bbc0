/**
 * The bytes of a text file as UTF-8, whatever it is packed in: told from its content, since names lie. gzip and Zstandard
 * are unpacked, UTF-16 is recoded. Memory is bounded by the pieces read, not by the file.
 */
import { createReadStream, type ReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Transform } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { CaravanError } from '../../shared/contract/errors.ts';
import { DamagedFile, pieces } from './pieces.ts';
import { unpackZstd } from './unpackZstd.ts';

const pieceBytes = 1 << 18;

const magics: [kind: string, bytes: number[]][] = [
  ['parquet', [0x50, 0x41, 0x52, 0x31]],
  ['encrypted Parquet', [0x50, 0x41, 0x52, 0x45]],
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['zip', [0x50, 0x4b, 0x03, 0x04]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ['7-Zip', [0x37, 0x7a, 0xbc, 0xaf]],
  ['Arrow', [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31]],
  ['SQLite', [0x53, 0x51, 0x4c, 0x69, 0x74, 0x65, 0x20]],
  ['PDF', [0x25, 0x50, 0x44, 0x46]],
  ['HDF5', [0x89, 0x48, 0x44, 0x46]],
];

/** What the first bytes say a file is; 'text' where they say nothing. */
export function kindOf(head: Uint8Array): string {
  const known = magics.find(([, bytes]) => bytes.every((byte, index) => head[index] === byte));
  if (known) return known[0];
  // Zstandard files may begin with frames to be skipped (50..5f 2a 4d 18).
  if ((head[0]! & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18) return 'zstd';
  return 'text';
}

export async function readHead(path: string, length = 16): Promise<Buffer> {
  try {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw named(error, path);
  }
}

/** Says what Node's errors of opening mean. */
function named(error: unknown, path: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  const place = { file: path };
  if (code === 'ENOENT') return new CaravanError('not_found', 'there is no such file', { place });
  if (code === 'EACCES' || code === 'EPERM')
    return new CaravanError('permission_denied', 'the file may not be read', { place });
  if (code === 'EISDIR') return new CaravanError('bad_file', 'this is a folder, not a file', { place });
  return error;
}

/**
 * @param onRead is told the bytes read of the file itself, for progress
 * @throws {@link DamagedFile} where an archive ends early or is broken
 */
export async function* openText(
  path: string,
  kind: string,
  onRead: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  if (kind !== 'text' && kind !== 'gzip' && kind !== 'zstd')
    throw new DamagedFile(`this is a file of the kind ${kind}, which import does not read`);
  const file = createReadStream(path, { highWaterMark: pieceBytes });
  try {
    const bytes = kind === 'gzip' ? gunzip(file) : kind === 'zstd' ? unpackZstd(pieces(file)) : pieces(file);
    for await (const piece of recode(bytes)) {
      onRead(file.bytesRead);
      yield piece;
    }
  } catch (error) {
    throw named(error, path);
  } finally {
    file.destroy();
  }
}

async function* gunzip(file: ReadStream): AsyncGenerator<Buffer> {
  yield* through(file, createGunzip({ chunkSize: pieceBytes }), 'gzip');
}

async function* through(file: ReadStream, unpacker: Transform, kind: string): AsyncGenerator<Buffer> {
  file.on('error', (error) => unpacker.destroy(error));
  file.pipe(unpacker);
  try {
    yield* pieces(unpacker);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_'))
      throw new DamagedFile(`the ${kind} archive is damaged or cut short: ${(error as Error).message}`);
    throw error;
  } finally {
    unpacker.destroy();
  }
}

/** To UTF-8 without a byte order mark. */
async function* recode(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer | null = Buffer.alloc(0);
  let utf16: Utf16Recoder | null = null;
  for await (let piece of bytes) {
    if (head !== null) {
      piece = Buffer.concat([head, piece]);
      if (piece.length < 4) {
        head = piece;
        continue;
      }
      head = null;
      const { encoding, skip } = encodingOf(piece);
      piece = piece.subarray(skip);
      if (encoding === 'utf32') throw new DamagedFile('the file is in UTF-32: save it as UTF-8');
      if (encoding !== 'utf8') utf16 = new Utf16Recoder(encoding === 'utf16be');
      const inner = kindOf(piece);
      if (inner !== 'text')
        throw new DamagedFile(`the archive holds a file of the kind ${inner}: unpack it first`);
    }
    yield utf16 ? utf16.push(piece) : piece;
  }
  if (head !== null && head.length > 0) yield head;
  if (utf16) yield utf16.end();
}

type Encoding = 'utf8' | 'utf16le' | 'utf16be' | 'utf32';

function encodingOf(head: Buffer): { encoding: Encoding; skip: number } {
  const [a, b, c, d] = head as unknown as [number, number, number, number];
  if (a === 0xef && b === 0xbb && c === 0xbf) return { encoding: 'utf8', skip: 3 };
  if (a === 0xff && b === 0xfe) return c === 0 && d === 0 ? utf32 : { encoding: 'utf16le', skip: 2 };
  if (a === 0 && b === 0 && c === 0xfe && d === 0xff) return utf32;
  if (a === 0xfe && b === 0xff) return { encoding: 'utf16be', skip: 2 };
  // Without a mark: rows begin with two characters of ASCII.
  if (a !== 0 && b === 0 && c !== 0 && d === 0) return { encoding: 'utf16le', skip: 0 };
  if (a === 0 && b !== 0 && c === 0 && d !== 0) return { encoding: 'utf16be', skip: 0 };
  return { encoding: 'utf8', skip: 0 };
}
const utf32 = { encoding: 'utf32', skip: 0 } as const;

/** Never a byte of UTF-8: the row that holds it is named as wrongly encoded, and no other. */
const wrong = Buffer.from([0xff]);
const loneSurrogate = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

class Utf16Recoder {
  readonly #bigEndian: boolean;
  #rest: Buffer = Buffer.alloc(0);

  constructor(bigEndian: boolean) {
    this.#bigEndian = bigEndian;
  }

  push(piece: Buffer): Buffer {
    const bytes = Buffer.concat([this.#rest, piece]);
    let whole = bytes.length & ~1;
    // A pair of surrogates is not cut in two.
    const last = whole >= 2 ? bytes[whole - (this.#bigEndian ? 2 : 1)]! : 0;
    if (last >= 0xd8 && last <= 0xdb) whole -= 2;
    this.#rest = Buffer.from(bytes.subarray(whole));
    return this.#toUtf8(bytes.subarray(0, whole));
  }

  end(): Buffer {
    return this.#rest.length > 0 ? wrong : this.#rest;
  }

  #toUtf8(bytes: Buffer): Buffer {
    const text = (this.#bigEndian ? bytes.swap16() : bytes).toString('utf16le');
    if (text.isWellFormed()) return Buffer.from(text);
    return Buffer.concat(
      text.split(loneSurrogate).flatMap((part, i) => [...(i ? [wrong] : []), Buffer.from(part)]),
    );
  }
}
