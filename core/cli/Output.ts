import type { CaravanError } from '../shared/contract/errors.ts';
import type { JobProgress } from '../shared/job/job.ts';
import { formatCount, formatDuration } from '../shared/format.ts';

/** 3,328, 5.48M, 12.5 %, 8/4000, -0.21, 1.2e-5, or nothing. */
const numberLike = /^(-|-?\d[\d.,]*(e[+-]?\d+)?( ?%|[kMB]|\/\d+)?)$/;

/**
 * Where a verb writes. People read text on stdout; with `--json` stdout carries one document (or JSON lines, where the
 * verb says so) and everything else goes to stderr. Progress goes to stderr always, as a bar only on a terminal.
 */
export class Output {
  readonly json: boolean;
  readonly #stdout: NodeJS.WritableStream;
  readonly #stderr: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
  #barShown = false;
  #lastPlainProgress = 0;
  #lastPlainText = '';

  constructor(json: boolean, stdout: NodeJS.WritableStream, stderr: NodeJS.WritableStream) {
    this.json = json;
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  /** A line for people; silent with `--json`. */
  line(text = ''): void {
    if (this.json) return;
    this.#clearBar();
    this.#stdout.write(`${text}\n`);
  }

  /** Text without a line end, as it streams. */
  stream(text: string): void {
    if (!this.json) this.#stdout.write(text);
  }

  /** The verb's document (or one of its lines); silent without `--json`. */
  document(value: unknown): void {
    if (this.json) this.#stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** A remark on stderr, in both modes. */
  remark(text: string): void {
    this.#clearBar();
    this.#stderr.write(`${text}\n`);
  }

  /** Aligned columns; numbers right (formatted ones too), text left. */
  table(header: string[], rows: (string | number | null)[][]): void {
    const cells = rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell))));
    const widths = header.map((name, column) =>
      Math.max(name.length, ...cells.map((row) => (row[column] ?? '').length)),
    );
    const isNumber = header.map((_, column) => cells.every((row) => numberLike.test(row[column] ?? '-')));
    const render = (row: string[]) =>
      row
        .map((cell, column) =>
          isNumber[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
        )
        .join('  ')
        .trimEnd();
    this.line(render(header));
    for (const row of cells) this.line(render(row));
  }

  progress(label: string, progress: JobProgress, detail = ''): void {
    const { done, total, unit, rate, etaMs } = progress;
    const parts = [
      total === null ? `${formatCount(done)} ${unit}` : `${formatCount(done)}/${formatCount(total)} ${unit}`,
      rate === null ? '' : `${formatCount(rate)} ${unit}/s`,
      etaMs === null ? '' : `${formatDuration(etaMs)} left`,
      detail,
    ].filter(Boolean);
    if (this.#stderr.isTTY) {
      const share = total ? Math.min(1, done / total) : 0;
      const width = 24;
      const full = Math.round(share * width);
      const bar = total === null ? '' : `${'█'.repeat(full)}${'░'.repeat(width - full)} `;
      const text = `${label} ${bar}${parts.join(' · ')}`;
      this.#stderr.write(`\r\x1b[2K${text.slice(0, (this.#stderr.columns ?? 100) - 1)}`);
      this.#barShown = true;
      return;
    }
    // A log file wants a line now and then, not one per step.
    const now = Date.now();
    if (now - this.#lastPlainProgress < 5000 && done !== total) return;
    this.#lastPlainProgress = now;
    const text = `${label}: ${parts.join(', ')}\n`;
    if (text === this.#lastPlainText) return;
    this.#lastPlainText = text;
    this.#stderr.write(text);
  }

  endProgress(): void {
    this.#clearBar();
  }

  error(error: CaravanError): void {
    this.#clearBar();
    const { file, line, column, field } = error.place ?? {};
    const where = [
      file && (line ? `${file}:${line}${column ? `:${column}` : ''}` : file),
      field && `field ${field}`,
    ]
      .filter(Boolean)
      .join(', ');
    this.#stderr.write(`caravan: ${where ? `${where}: ` : ''}${error.message}\n`);
    if (error.mend) this.#stderr.write(`  ${error.mend}\n`);
    if (this.json) this.#stdout.write(`${JSON.stringify({ error: error.toData() })}\n`);
  }

  #clearBar(): void {
    if (!this.#barShown) return;
    this.#stderr.write('\r\x1b[2K');
    this.#barShown = false;
  }
}
