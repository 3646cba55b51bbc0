/** What is odd about a source as a whole, gathered while its rows pass. */
import type { ReadRow } from './formats.ts';

/** A file may have a different label in each row; only so many are counted by name. */
const maxLabels = 1000;
/** Ids beyond so many are not compared: 53 bits of each are kept. */
const maxIds = 2_000_000;

interface Style {
  rows: number;
  /** Answers that begin with a block of code, as all of Magicoder-OSS-Instruct do and few of Evol-Instruct. */
  codeFirst: number;
}

export class RowObserver {
  readonly #labels = new Map<string, number>();
  readonly #styles = new Map<string, Style>();
  readonly #ids = new Set<number>();
  #unnamed = 0;
  #repeatedIds = 0;
  #firstRepeated: string | null = null;

  /** @param value the row as it was in the file */
  see({ label, messages }: ReadRow, value: unknown): void {
    const seen = this.#labels.get(label);
    if (seen !== undefined || this.#labels.size < maxLabels) this.#labels.set(label, (seen ?? 0) + 1);
    else this.#unnamed++;
    const id = (value as { id?: unknown }).id;
    if (typeof id === 'string' || typeof id === 'number') this.#seeId(String(id));
    if (!/oss|evol/i.test(label) || label.length > 64) return;
    const style = this.#styles.get(label) ?? { rows: 0, codeFirst: 0 };
    this.#styles.set(label, style);
    style.rows++;
    if (messages.at(-1)!.content.startsWith('```')) style.codeFirst++;
  }

  #seeId(id: string): void {
    const hash = hash53(id);
    if (this.#ids.has(hash)) {
      this.#repeatedIds++;
      this.#firstRepeated ??= id.slice(0, 40);
    } else if (this.#ids.size < maxIds) this.#ids.add(hash);
  }

  labels(): Record<string, number> {
    return Object.fromEntries(this.#labels);
  }

  notes(): string[] {
    const notes: string[] = [];
    const swapped = this.#swappedCode();
    if (swapped !== null) notes.push(swapped);
    if (this.#repeatedIds > 0)
      notes.push(
        `${this.#repeatedIds} rows repeat the id of an earlier one (the first: ${this.#firstRepeated}); ` +
          'they are kept: a mix drops what repeats words, not ids',
      );
    if (this.#unnamed > 0)
      notes.push(
        `more than ${maxLabels} labels: ${this.#unnamed} rows have others than those counted by name`,
      );
    return notes;
  }

  /** The published sample of IDAE carries Magicoder's two labels the wrong way round. */
  #swappedCode(): string | null {
    const named = [...this.#styles].map(([label, style]) => ({ label, ...style }));
    const oss = named.find(({ label }) => /oss/i.test(label) && !/evol/i.test(label));
    const evol = named.find(({ label }) => /evol/i.test(label) && !/oss/i.test(label));
    if (!oss || !evol || oss.rows < 5 || evol.rows < 5) return null;
    if (evol.codeFirst < evol.rows * 0.8 || oss.codeFirst > oss.rows * 0.2) return null;
    return (
      `the labels '${oss.label}' and '${evol.label}' look swapped: ${evol.codeFirst} of ${evol.rows} answers under ` +
      `'${evol.label}' begin with a block of code, as OSS-Instruct's do, and ${oss.codeFirst} of ${oss.rows} under ` +
      `'${oss.label}'; rows are kept under the labels that the file gives them`
    );
  }
}

/** cyrb53: two 32-bit hashes of the UTF-16 units, mixed at the end. */
function hash53(text: string): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 2654435761);
    b = Math.imul(b ^ unit, 1597334677);
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return (b & 0x1fffff) * 2 ** 32 + (a >>> 0);
}
