/** Tokens of rows on their way from the tokenizer to a shard: on disk, since 300 million of them take 1.2 GB. */
import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';

const bufferTokens = 1 << 20;
/** No vocabulary reaches this bit. */
const targetBit = 0x4000_0000;

export class TokenStore {
  readonly #path: string;
  readonly #file: number;
  readonly #buffer = new Int32Array(bufferTokens);
  /** Of each row by id, in tokens; -1: not here. */
  readonly #start: Float64Array;
  readonly #length: Int32Array;
  #written = 0;
  #waiting = 0;

  /** @param rows ids are below this */
  constructor(path: string, rows: number) {
    this.#path = path;
    this.#file = openSync(path, 'w+');
    this.#start = new Float64Array(rows).fill(-1);
    this.#length = new Int32Array(rows);
  }

  add(id: number, ids: Int32Array, targets: Uint8Array): void {
    if (this.#waiting + ids.length > bufferTokens) this.flush();
    this.#start[id] = this.#written + this.#waiting;
    this.#length[id] = ids.length;
    // A row longer than the buffer would need a seqLen of a million.
    const into = ids.length > bufferTokens ? new Int32Array(ids.length) : this.#buffer;
    const at = into === this.#buffer ? this.#waiting : 0;
    for (let i = 0; i < ids.length; i++) into[at + i] = targets[i] === 1 ? ids[i]! | targetBit : ids[i]!;
    if (into === this.#buffer) this.#waiting += ids.length;
    else this.#write(into);
  }

  flush(): void {
    this.#write(this.#buffer.subarray(0, this.#waiting));
    this.#waiting = 0;
  }

  #write(tokens: Int32Array): void {
    let bytes = Buffer.from(tokens.buffer, tokens.byteOffset, tokens.byteLength);
    while (bytes.length > 0) bytes = bytes.subarray(writeSync(this.#file, bytes));
    this.#written += tokens.length;
  }

  lengthOf(id: number): number {
    return this.#length[id]!;
  }

  /** Fills `ids` and `targets` from `at` on. @returns the position after the row */
  read(id: number, ids: Int32Array, targets: Uint8Array, at: number): number {
    const length = this.#length[id]!;
    const bytes = Buffer.from(ids.buffer, ids.byteOffset + at * 4, length * 4);
    for (let done = 0; done < bytes.length;) {
      const read = readSync(this.#file, bytes, done, bytes.length - done, this.#start[id]! * 4 + done);
      if (read === 0) throw new Error('the file of tokens ends early');
      done += read;
    }
    for (let i = at; i < at + length; i++) {
      const token = ids[i]!;
      targets[i] = token & targetBit ? 1 : 0;
      ids[i] = token & ~targetBit;
    }
    return at + length;
  }

  close(): void {
    closeSync(this.#file);
    rmSync(this.#path, { force: true });
  }
}
