/**
 * Cuts rows into calls: at most `maxRows` of them, and of so much text that a call stays far below what a host takes.
 * A row that is larger by itself makes a call of its own.
 */
export function* chunksOf<T>(
  rows: readonly T[],
  maxRows: number,
  charsOf: (row: T) => number,
  maxChars = 1 << 20,
): Generator<T[]> {
  let chunk: T[] = [];
  let chars = 0;
  for (const row of rows) {
    const size = charsOf(row);
    if (chunk.length > 0 && (chunk.length === maxRows || chars + size > maxChars)) {
      yield chunk;
      chunk = [];
      chars = 0;
    }
    chunk.push(row);
    chars += size;
  }
  if (chunk.length > 0) yield chunk;
}
