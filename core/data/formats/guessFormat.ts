/** What format a file has, told from its columns and from how many sample rows can be read in it. */
import type { ColumnMapping, SourceFormat } from '../../shared/dataset/source.ts';
import { readRow } from './formats.ts';

type KnownFormat = Exclude<SourceFormat, 'auto'>;
type GuessedFormat = Exclude<KnownFormat, 'mapping'>;

/** Columns by which a format is known, most telling first. */
const signatures: [GuessedFormat, string[]][] = [
  ['reference', ['conversation', 'instruction', 'dataset']],
  ['reference', ['conversation', 'corpus']],
  ['messages', ['messages']],
  ['sharegpt', ['conversations']],
  ['query-response', ['query', 'response']],
  ['problem-solution', ['problem', 'solution']],
  ['instruction-response', ['instruction', 'response']],
  ['alpaca', ['instruction', 'output']],
  ['question-answer', ['question', 'answer']],
  ['prompt-completion', ['prompt', 'completion']],
  ['sharegpt', ['conversation']],
  ['text', ['text']],
];

/** Columns that some format reads, beside those of a signature. */
const furtherColumns = ['source', 'input', 'system', 'history', 'lang', 'type', 'original_question', 'id'];

/** All columns that import may look at. */
export function columnsOfInterest(mapping: ColumnMapping | undefined): Set<string> {
  const own = mapping ? Object.values(mapping).filter((name) => name !== undefined) : [];
  return new Set([...signatures.flatMap(([, columns]) => columns), ...furtherColumns, ...own]);
}

/** Wide tables may have thousands of columns: the message names the first. */
const maxColumns = 50;

export interface Guess {
  /** Null: no format has these columns. */
  format: GuessedFormat | null;
  columns: string[];
  /** Share of all sample rows that have the format's columns. */
  share: number;
  sampled: number;
  /** Sample rows from which a conversation can be read in this format. */
  readable: number;
  /** Other formats in which at least half as many rows can be read. */
  others: GuessedFormat[];
}

/** Collects sample rows one by one, so that none need be kept. */
export class FormatGuess {
  readonly #columns = new Set<string>();
  readonly #matching = signatures.map(() => 0);
  readonly #readable = signatures.map(() => 0);
  #sampled = 0;
  #objects = 0;

  get sampled(): number {
    return this.#sampled;
  }

  add(value: unknown): void {
    this.#sampled++;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return;
    this.#objects++;
    for (const name of Object.keys(value)) {
      if (this.#columns.size === maxColumns) break;
      this.#columns.add(name);
    }
    for (const [index, [format, needed]] of signatures.entries()) {
      if (!needed.every((column) => Object.hasOwn(value, column))) continue;
      this.#matching[index]!++;
      if ('row' in readRow(value, format)) this.#readable[index]!++;
    }
  }

  /** Of the formats whose columns most rows have, the first in which rows can be read; else the first. */
  result(): Guess {
    const fitting = signatures.flatMap(([format], index) => {
      const matching = this.#matching[index]!;
      return matching > 0 && matching * 2 >= this.#objects
        ? [{ format, matching, readable: this.#readable[index]! }]
        : [];
    });
    const most = Math.max(0, ...fitting.map(({ readable }) => readable));
    const best = fitting.find(({ readable }) => readable * 2 >= most) ?? fitting[0];
    return {
      format: best?.format ?? null,
      columns: [...this.#columns],
      share: best ? best.matching / this.#sampled : 0,
      sampled: this.#sampled,
      readable: best?.readable ?? 0,
      others: fitting
        .filter(({ format, readable }) => format !== best!.format && readable > 0 && readable * 2 >= most)
        .map(({ format }) => format),
    };
  }
}

/** How sure the guess is, in one sentence. */
export function describeGuess({ format, sampled, readable, others }: Guess): string {
  const rows = sampled === 1 ? 'the only row' : `${readable} of the first ${sampled} rows`;
  const read =
    sampled === 1
      ? `${rows} ${readable === 1 ? 'reads' : 'does not read'} as it`
      : readable === sampled
        ? `all of the first ${sampled} rows read as it`
        : `${rows} read as it`;
  const sure = readable === sampled ? 'sure' : readable * 10 >= sampled * 9 ? 'fairly sure' : 'unsure';
  const also = others.length > 0 ? `; the columns would also fit ${others.join(', ')}: check some rows` : '';
  return `guessed the format ${format} (${others.length > 0 && sure === 'sure' ? 'fairly sure' : sure}): ${read}${also}`;
}
