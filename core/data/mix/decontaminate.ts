import type { DuckDBAppender } from '@duckdb/node-api';
import type { AddonOverlapSearch, OverlapsFound } from '../../engine/AddonTypes.ts';
import type { ContaminationCount, Decontaminate } from '../../shared/dataset/decontamination.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { commonStretches, excerpt } from '../benchmarks/commonWords.ts';
import { readBenchmark, type BenchmarkItem, type BenchmarkItems } from '../benchmarks/readBenchmark.ts';
import { sqlString } from '../database.ts';
import type { AddonLoader, Report } from '../protocol.ts';
import { readTexts, rowsStillIn, sourceName, type RowTable, type TextRow } from './rowTable.ts';

/** Texts handed to the addon at a time. */
const batchRows = 4000;
/** Characters of a text that a match shows. */
const shownCharacters = 2000;
/** Matches kept of one row, the best; of overlap with a train split, which may be most of a source; of one benchmark. */
const keptPerRow = 5;
const keptOfTrain = 1000;
const keptOfTest = 20_000;

/** What one part of an item is sought as. */
interface Part {
  benchmark: number;
  item: number;
  side: 'prompt' | 'answer';
  text: string;
  words: number;
}

interface Match {
  part: Part;
  equal: boolean;
  longest: number;
  coverage: number;
  rowSide: 'prompt' | 'answer';
  rowText: string;
}

export interface Decontamination {
  table: RowTable;
  settings: Decontaminate;
  /** Absolute files of each benchmark. */
  files: string[][];
  threads: number;
  loadAddon: AddonLoader;
  report: Report;
  stop: () => void;
}

/**
 * Rejects rows that hold a benchmark's items, and fills the table `contamination` with matches. Overlap with a train split
 * is counted and listed apart, and kept unless the recipe says else.
 */
export async function decontaminate(work: Decontamination): Promise<ContaminationCount[]> {
  const { table, settings, threads, loadAddon, report, stop } = work;
  report({ done: 0, total: work.files.length, unit: 'benchmarks', stage: 'reading benchmarks' });
  const benchmarks: BenchmarkItems[] = [];
  for (const [index, files] of work.files.entries()) {
    benchmarks.push(await readBenchmark(settings.benchmarks[index]!, files));
    stop();
  }
  const search = await loadAddon().createOverlapSearch({
    ngram: settings.ngram,
    floor: settings.floor,
    threads,
  });
  try {
    const parts = await addParts(search, benchmarks, settings);
    const found = new Findings(benchmarks, settings);
    await found.open(table);
    const still = await rowsStillIn(table);
    const total = still.reduce((sum, one) => sum + one, 0);
    let done = 0;
    let scanning: Promise<void> = Promise.resolve();
    for await (const rows of readTexts(table, still, batchRows)) {
      stop();
      const texts = rows.flatMap((row, at) =>
        row.messages.flatMap(({ role, content }) => (role === 'system' ? [] : [{ at, role, content }])),
      );
      await scanning;
      // Scanned while the next rows are read; a failure is met at the next await.
      scanning = search
        .scan(texts.map(({ content }) => content))
        .then((overlaps) => found.take(rows, texts, overlaps, parts));
      scanning.catch(() => {});
      done += rows.length;
      report({ done, total, unit: 'rows', stage: 'seeking benchmarks' });
    }
    await scanning;
    await found.close(table);
    return found.counts(parts);
  } finally {
    search.dispose();
  }
}

async function addParts(
  search: AddonOverlapSearch,
  benchmarks: readonly BenchmarkItems[],
  settings: Decontaminate,
): Promise<Part[]> {
  const parts: Part[] = [];
  for (const [benchmark, { items }] of benchmarks.entries())
    for (const [item, { prompts, answers }] of items.entries())
      for (const [side, texts] of [
        ['prompt', prompts],
        ['answer', answers],
      ] as const)
        if (settings.parts.includes(side))
          for (const text of texts) parts.push({ benchmark, item, side, text, words: 0 });
  for (let from = 0; from < parts.length; from += batchRows) {
    const batch = parts.slice(from, from + batchRows);
    const counts = await search.add(batch.map(({ text }) => text));
    for (const [index, part] of batch.entries()) part.words = counts[index]!;
  }
  return parts;
}

class Findings {
  readonly #benchmarks: readonly BenchmarkItems[];
  readonly #settings: Decontaminate;
  readonly #items: Set<number>[];
  readonly #rows: number[];
  readonly #kept: number[];
  #matches!: DuckDBAppender;
  #dropped!: DuckDBAppender;
  #match = 0;

  constructor(benchmarks: readonly BenchmarkItems[], settings: Decontaminate) {
    this.#benchmarks = benchmarks;
    this.#settings = settings;
    this.#items = benchmarks.map(() => new Set());
    this.#rows = benchmarks.map(() => 0);
    this.#kept = benchmarks.map(() => 0);
  }

  async open({ connection }: RowTable): Promise<void> {
    await connection.run(`CREATE TABLE contamination ("match" BIGINT, id BIGINT, benchmark VARCHAR, split VARCHAR, item BIGINT,
      item_file VARCHAR, item_line BIGINT, row_part VARCHAR, item_part VARCHAR, kind VARCHAR, words INTEGER, coverage DOUBLE,
      dropped BOOLEAN, row_text VARCHAR, row_spans VARCHAR, item_text VARCHAR, item_spans VARCHAR)`);
    await connection.run('CREATE TEMP TABLE contaminated (id BIGINT, detail VARCHAR)');
    this.#matches = await connection.createAppender('contamination');
    this.#dropped = await connection.createAppender('contaminated');
  }

  async close({ connection }: RowTable): Promise<void> {
    this.#matches.closeSync();
    this.#dropped.closeSync();
    await connection.run(`UPDATE rows SET reason = 'contaminated', step = 'decontaminate', detail = contaminated.detail
      FROM contaminated WHERE contaminated.id = rows.id`);
    await connection.run('DROP TABLE contaminated');
  }

  /** What was found in one batch, by row. */
  take(
    rows: readonly TextRow[],
    texts: readonly { at: number; role: Message['role']; content: string }[],
    overlaps: OverlapsFound,
    parts: readonly Part[],
  ): void {
    const { floor, minCoverage } = this.#settings;
    const byRow = new Map<number, Match[]>();
    for (const [index, text] of overlaps.texts.entries()) {
      const part = parts[overlaps.parts[index]!]!;
      const equal = overlaps.equal[index] === 1;
      // "Yes" and "18" are answers to much: only prompts are told by so few words.
      if (part.words < floor && part.side === 'answer') continue;
      const coverage = overlaps.covered[index]! / part.words;
      if (coverage < minCoverage) continue;
      const { at, role, content } = texts[text]!;
      const rowSide = role === 'user' ? 'prompt' : 'answer';
      const matches = byRow.get(at) ?? [];
      byRow.set(at, matches);
      matches.push({ part, equal, longest: overlaps.longest[index]!, coverage, rowSide, rowText: content });
    }
    for (const [at, matches] of byRow) this.#takeRow(rows[at]!.id, matches);
  }

  #takeRow(id: number, matches: Match[]): void {
    const item = ({ part }: Match): BenchmarkItem => this.#benchmarks[part.benchmark]!.items[part.item]!;
    matches.sort((a, b) => b.coverage - a.coverage || b.longest - a.longest);
    const drops = (match: Match) => item(match).split === 'test' || this.#settings.onTrain === 'drop';
    const worst = matches.find(drops);
    for (const benchmark of new Set(matches.map(({ part }) => part.benchmark))) this.#rows[benchmark]!++;
    for (const { part } of matches) this.#items[part.benchmark]!.add(part.item);
    if (worst) {
      const { name } = this.#benchmarks[worst.part.benchmark]!;
      const { split, line, file } = item(worst);
      this.#dropped.appendBigInt(BigInt(id));
      this.#dropped.appendVarchar(
        `${worst.equal ? `equals the ${worst.part.side}` : `${worst.longest} words of the ${worst.part.side}`} of ${name} ${split} item ` +
          `${worst.part.item} (${file}:${line}) in the ${worst.rowSide}, ${Math.round(worst.coverage * 100)} % of it`,
      );
      this.#dropped.endRow();
    }
    const seen = new Set<string>();
    for (const match of matches) {
      // Two spellings of one item count once; tests before what was only trained on.
      const key = `${match.part.benchmark} ${match.part.item} ${match.part.side} ${match.rowSide}`;
      if (seen.has(key) || seen.size >= keptPerRow) continue;
      seen.add(key);
      const limit = item(match).split === 'train' ? keptOfTrain : keptOfTest;
      if (this.#kept[match.part.benchmark]!++ < limit) this.#keep(id, match, item(match), drops(match));
    }
  }

  #keep(
    id: number,
    { part, equal, longest, coverage, rowSide, rowText }: Match,
    item: BenchmarkItem,
    dropped: boolean,
  ): void {
    const common = commonStretches(rowText, part.text, this.#settings.ngram);
    const row = excerpt(rowText, common.a, shownCharacters);
    const shown = excerpt(part.text, common.b, shownCharacters);
    const to = this.#matches;
    to.appendBigInt(BigInt(this.#match++));
    to.appendBigInt(BigInt(id));
    to.appendVarchar(this.#benchmarks[part.benchmark]!.name);
    to.appendVarchar(item.split);
    to.appendBigInt(BigInt(part.item));
    to.appendVarchar(item.file);
    to.appendBigInt(BigInt(item.line));
    to.appendVarchar(rowSide);
    to.appendVarchar(part.side);
    to.appendVarchar(equal ? 'exact' : 'ngram');
    to.appendInteger(longest);
    to.appendDouble(coverage);
    to.appendBoolean(dropped);
    to.appendVarchar(row.text);
    to.appendVarchar(JSON.stringify(row.spans));
    to.appendVarchar(shown.text);
    to.appendVarchar(JSON.stringify(shown.spans));
    to.endRow();
  }

  counts(parts: readonly Part[]): ContaminationCount[] {
    return this.#benchmarks.map(({ name, format, split, items, skipped, contentHash }, benchmark) => {
      const longEnough = new Set<number>();
      for (const part of parts)
        if (part.benchmark === benchmark && part.words >= this.#settings.floor) longEnough.add(part.item);
      return {
        name,
        format,
        split,
        items: items.length,
        shortItems: items.length - longEnough.size,
        skipped,
        contentHash,
        itemsFound: this.#items[benchmark]!.size,
        rows: this.#rows[benchmark]!,
      };
    });
  }
}

export const contaminationFile = 'contamination.parquet';

/** `contamination.parquet`: matches with the rows that they are in. */
export async function writeContamination({ connection, sources }: RowTable, file: string): Promise<void> {
  await connection.run(`COPY (SELECT "match", ${sourceName(sources, 'rows.source')} AS source, rows."row" AS source_row, rows.file, rows.line,
      benchmark, c.item_split AS split, item, item_file, item_line, row_part, item_part, kind, words, coverage, dropped, row_text, row_spans,
      item_text, item_spans
      FROM (SELECT * RENAME (split AS item_split) FROM contamination) AS c JOIN rows ON rows.id = c.id ORDER BY "match")
    TO ${sqlString(file)} (FORMAT parquet, COMPRESSION zstd)`);
}
