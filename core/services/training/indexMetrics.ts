import { createReadStream } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Store } from '../../store/openStore.ts';
import { index } from './createRunRecorder.ts';
import { metricsLineSchema, type MetricsLine } from './metricsLog.ts';
import type { RunTable } from './runTable.ts';
import type { StepTable } from './stepTable.ts';

/** What metrics.jsonl says beside steps and evaluations. */
export interface IndexedMetrics {
  /** End of the last whole line. */
  bytes: number;
  /** The last of its kind past where reading began. */
  state: Extract<MetricsLine, { type: 'state' }> | null;
  label: Extract<MetricsLine, { type: 'label' }> | null;
  resume: Extract<MetricsLine, { type: 'resume' }> | null;
  opened: Extract<MetricsLine, { type: 'opened' }> | null;
  firstAt: number | null;
  lastAt: number | null;
  /** Time in steps since reading began: what a run that left no state line was busy for, at least. */
  stepMs: number;
  /** Lines that are none of ours, by number. */
  bad: number[];
}

/** Lines in one transaction, between which other work gets its turn. */
const linesATurn = 100;

export function nothingIndexed(bytes: number): IndexedMetrics {
  return {
    bytes,
    state: null,
    label: null,
    resume: null,
    opened: null,
    firstAt: null,
    lastAt: null,
    stepMs: 0,
    bad: [],
  };
}

export function note(found: IndexedMetrics, line: MetricsLine): void {
  if (line.type === 'state') found.state = line;
  else if (line.type === 'label') found.label = line;
  else if (line.type === 'opened') found.opened = line;
  else if (line.type === 'resume') {
    found.resume = line;
    // What ended before a resume is over.
    found.state = null;
  } else if (line.type === 'step') {
    found.firstAt ??= line.at;
    found.lastAt = line.at;
    found.stepMs += line.stepMs;
  }
}

/** Reads metrics.jsonl from a line's beginning on into the tables. */
export async function indexMetrics(
  file: string,
  key: number,
  fromByte: number,
  { store, runs, steps }: { store: Store; runs: RunTable; steps: StepTable },
): Promise<IndexedMetrics> {
  const found = nothingIndexed(fromByte);
  let number = 0;
  let pending: MetricsLine[] = [];
  let rest: Buffer<ArrayBufferLike> = Buffer.alloc(0);

  function take(line: string): void {
    number++;
    const parsed = metricsLineSchema.safeParse(parseJson(line));
    if (!parsed.success) {
      found.bad.push(number);
      return;
    }
    const { data } = parsed;
    pending.push(data);
    note(found, data);
  }

  function commit(): void {
    store.transaction(() => {
      index(steps, key, pending);
      runs.saveMetricsBytes(key, found.bytes);
    });
    pending = [];
  }

  for await (const chunk of createReadStream(file, {
    start: fromByte,
    highWaterMark: 256 * 1024,
  }) as AsyncIterable<Buffer>) {
    let from = 0;
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10, from); end >= 0; end = rest.indexOf(10, from)) {
      take(rest.toString('utf8', from, end));
      found.bytes += end + 1 - from;
      from = end + 1;
      if (pending.length >= linesATurn) {
        commit();
        await nextTurn();
      }
    }
    rest = rest.subarray(from);
  }
  commit();
  return found;
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
