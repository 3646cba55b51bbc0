/**
 * What a training engine told that its host has not put on disk yet, in a file of the run's folder. Every line is there
 * before it is sent, so whichever of the two is killed, and whenever, nothing that was told is lost; a next host reads it.
 */
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { toldSchema, type Told } from './protocol.ts';

export interface JournalLine {
  /** Counted from 1 by the engine. */
  line: number;
  /** Milliseconds since 1970. */
  at: number;
  told: Told;
}

export interface Journal {
  /** Steps come alone. @returns the line's number */
  write(told: Told): number;
  /** The host has all lines up to this one on disk. */
  recorded(line: number): void;
  /** On disk for good. */
  sync(): void;
}

/** Lines that the host has stay in the file until they make up so much of it. */
const looseBytes = 64 * 1024;

export const journalFile = (runDir: string) => join(runDir, 'undelivered.jsonl');

/** @param onTrouble told once, where the file cannot be written; training goes on */
export function openJournal(runDir: string, onTrouble: (error: Error) => void): Journal {
  const file = journalFile(runDir);
  let waiting: { line: number; text: string }[] = [];
  let descriptor: number | null = null;
  let lines = 0;
  let bytes = 0;

  function attempt(work: (open: number) => void): void {
    if (descriptor === null) return;
    try {
      work(descriptor);
    } catch (error) {
      descriptor = null;
      onTrouble(error as Error);
    }
  }

  try {
    // Appending, or what is written after a truncation would begin with a hole.
    descriptor = openSync(file, 'a');
    ftruncateSync(descriptor);
  } catch (error) {
    onTrouble(error as Error);
  }

  return {
    write(told) {
      const text = `${JSON.stringify({ line: ++lines, at: Date.now(), told } satisfies JournalLine, plain)}\n`;
      waiting.push({ line: lines, text });
      attempt((open) => {
        writeSync(open, text);
        bytes += Buffer.byteLength(text);
      });
      return lines;
    },
    recorded(line) {
      waiting = waiting.filter((each) => each.line > line);
      attempt((open) => {
        if (waiting.length === 0) {
          ftruncateSync(open);
          bytes = 0;
          return;
        }
        if (bytes < looseBytes) {
          const mark = `${JSON.stringify({ recorded: line })}\n`;
          writeSync(open, mark);
          bytes += mark.length;
          return;
        }
        const text = waiting.map((each) => each.text).join('');
        // Whole or not at all: what waits must be in one of the two files at any moment.
        const partial = `${file}.partial`;
        rmSync(partial, { force: true });
        appendFileSync(partial, text);
        renameSync(partial, file);
        closeSync(open);
        descriptor = openSync(file, 'a');
        bytes = Buffer.byteLength(text);
      });
    },
    sync: () => attempt(fsyncSync),
  };
}

/** What an engine told that its host has not on disk, in order. A line cut short is none. */
export function readJournal(runDir: string): JournalLine[] {
  let text: string;
  try {
    text = readFileSync(journalFile(runDir), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  let lines: JournalLine[] = [];
  for (const line of text.split('\n')) {
    const parsed = lineSchema.safeParse(parseJson(line));
    if (!parsed.success) continue;
    const { data } = parsed;
    if ('recorded' in data) lines = lines.filter((each) => each.line > data.recorded);
    else lines.push(data);
  }
  return lines;
}

export function removeJournal(runDir: string): void {
  rmSync(journalFile(runDir), { force: true });
}

const lineSchema = z.union([
  z.object({ recorded: z.number().int() }),
  z.object({ line: z.number().int(), at: z.number(), told: z.preprocess(revive, toldSchema) }),
]);

/** Typed arrays as arrays; nine digits give a 32-bit float back exactly. What is not finite becomes null. */
function plain(_key: string, value: unknown): unknown {
  if (value instanceof Float32Array) return Array.from(value, (single) => Number(single.toPrecision(9)));
  if (value instanceof Int32Array) return Array.from(value);
  return value;
}

/** Fields that are null for want of a measurement, not because a number was not finite. */
const nullable = new Set(['checkpoint', 'problem', 'quantizationDifference']);

function revive(told: unknown): unknown {
  return JSON.parse(JSON.stringify(told), (key, value: unknown) => {
    if (value === null && !nullable.has(key)) return NaN;
    if (key === 'expertShares' || key === 'rowLosses') return Float32Array.from(value as number[]);
    if (key === 'rows' && Array.isArray(value)) return Int32Array.from(value as number[]);
    return value;
  }) as unknown;
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
