import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateRows } from './generate.ts';
import type { Row, Split } from './generate.ts';
import type { Kind } from './problem.ts';
import { sourceFiles, sourceRecord } from './sourceRecord.ts';

/** What to write: how many rows of each kind, from which seed and side. */
export interface SourceOptions {
  seed: number;
  /** Rows of each kind, or one number for all three. */
  rows: number | Readonly<Record<Kind, number>>;
  /** @default 'train' */
  split?: Split;
}

/** One written file, with the rows that are in it, in order. */
export interface WrittenSource {
  kind: Kind;
  file: string;
  rows: readonly Row[];
}

/**
 * Writes the three instruction sources as raw files in `dir` (created where it is absent): SlimOrca-like,
 * Magicoder-like and MetaMathQA-like JSON lines. Same options, same bytes.
 * @throws RangeError where more different rows are asked for than the families can give
 */
export function writeSources(dir: string, options: SourceOptions): Record<Kind, WrittenSource> {
  mkdirSync(dir, { recursive: true });
  const write = (kind: Kind): WrittenSource => {
    const count = typeof options.rows === 'number' ? options.rows : options.rows[kind];
    const rows = generateRows(kind, options.split ?? 'train', options.seed, count);
    const file = join(dir, sourceFiles[kind]);
    writeFileSync(file, rows.map((row, i) => `${JSON.stringify(sourceRecord(row, i))}\n`).join(''));
    return { kind, file, rows };
  };
  return { general: write('general'), code: write('code'), math: write('math') };
}
