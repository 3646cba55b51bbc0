/** Rows by their place in what a query finds, read a window at a time and kept while they are near. */
export class RowWindows<R> {
  readonly pageRows: number;
  readonly #read: (from: number, count: number) => Promise<R[]>;
  readonly #changed: () => void;
  readonly #failed: (error: unknown) => void;
  readonly #kept: number;
  readonly #pages = new Map<number, R[]>();
  readonly #reading = new Set<number>();
  #wanted: number[] = [];
  #ended = false;

  /** @param kept windows that stay in memory */
  constructor(
    read: (from: number, count: number) => Promise<R[]>,
    { changed, failed }: { changed: () => void; failed: (error: unknown) => void },
    pageRows = 100,
    kept = 60,
  ) {
    this.#read = read;
    this.#changed = changed;
    this.#failed = failed;
    this.pageRows = pageRows;
    this.#kept = kept;
  }

  at(index: number): R | undefined {
    return this.#pages.get(Math.floor(index / this.pageRows))?.[index % this.pageRows];
  }

  /** What is looked at now: [from, to). Windows that were wanted before and are not now are no longer asked for. */
  want(from: number, to: number): void {
    const first = Math.floor(from / this.pageRows);
    const last = Math.floor(Math.max(from, to - 1) / this.pageRows);
    this.#wanted = [];
    for (let page = first; page <= last; page++) {
      const rows = this.#pages.get(page);
      if (!rows) this.#wanted.push(page);
      else {
        this.#pages.delete(page);
        this.#pages.set(page, rows);
      }
    }
    this.#next();
  }

  /** Nothing is read or told any more. */
  end(): void {
    this.#ended = true;
    this.#wanted = [];
  }

  #next(): void {
    while (this.#reading.size < 2) {
      const page = this.#wanted.find((wanted) => !this.#reading.has(wanted) && !this.#pages.has(wanted));
      if (page === undefined || this.#ended) return;
      this.#wanted = this.#wanted.filter((wanted) => wanted !== page);
      this.#reading.add(page);
      void this.#read(page * this.pageRows, this.pageRows)
        .then(
          (rows) => {
            this.#pages.set(page, rows);
            for (const old of this.#pages.keys()) {
              if (this.#pages.size <= this.#kept) break;
              this.#pages.delete(old);
            }
            if (!this.#ended) this.#changed();
          },
          (error: unknown) => {
            if (!this.#ended) this.#failed(error);
          },
        )
        .finally(() => {
          this.#reading.delete(page);
          this.#next();
        });
    }
  }
}
