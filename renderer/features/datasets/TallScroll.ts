/**
 * Scrolling over more rows than an element can be high. Chromium's layout ends at 2^25 physical pixels (half as many CSS
 * pixels at device pixel ratio 2), and a million rows are higher than that. The scrolled element is never higher than
 * `maxHeight`; positions beyond are reached by shifting the rows against it. Small scrolls (wheel, touch, keys) move by
 * their own pixels, jumps (the scrollbar) in proportion.
 */
export class TallScroll {
  /** Far below every browser's limit at any pixel ratio. */
  static readonly maxHeight = 6_000_000;

  readonly rowHeight: number;
  #rows = 0;
  #viewport = 0;
  #scrollTop = 0;
  /** What rows are shifted by: a row at `y` of all rows stands at `y - shift` of the element. */
  #shift = 0;

  constructor(rowHeight: number) {
    this.rowHeight = rowHeight;
  }

  get fullHeight(): number {
    return this.#rows * this.rowHeight;
  }
  /** Of the scrolled element. */
  get height(): number {
    return Math.min(this.fullHeight, TallScroll.maxHeight);
  }
  get shift(): number {
    return this.#shift;
  }
  /** Of all rows, in pixels from the first. */
  get offset(): number {
    return this.#scrollTop + this.#shift;
  }
  get #maxOffset(): number {
    return Math.max(0, this.fullHeight - this.#viewport);
  }
  get #maxScroll(): number {
    return Math.max(0, this.height - this.#viewport);
  }

  /** @returns the scrollTop that keeps what is seen */
  resize(rows: number, viewport: number): number {
    this.#rows = rows;
    this.#viewport = viewport;
    return this.scrollTo(this.offset);
  }

  /**
   * Takes the element's new scrollTop.
   * @returns the scrollTop that the element should have instead; mostly the same
   */
  scrolled(scrollTop: number): number {
    const step = scrollTop - this.#scrollTop;
    if (this.#maxScroll === this.#maxOffset) {
      this.#scrollTop = scrollTop;
      this.#shift = 0;
      return scrollTop;
    }
    if (Math.abs(step) > 4 * this.#viewport) return this.scrollTo(this.#fromProportion(scrollTop));
    this.#scrollTop = scrollTop;
    const atEnd = scrollTop <= 0 || scrollTop >= this.#maxScroll;
    if (atEnd || this.offset < 0 || this.offset > this.#maxOffset) return this.settle();
    return scrollTop;
  }

  /** Brings the scrollbar to where it belongs, without moving what is seen. @returns the new scrollTop */
  settle(): number {
    return this.scrollTo(this.offset);
  }

  /** @returns the scrollTop for an offset of all rows */
  scrollTo(offset: number): number {
    const bounded = Math.max(0, Math.min(this.#maxOffset, offset));
    // Whole pixels: a browser rounds what it is given, and the rows would then stand beside where they should.
    this.#scrollTop = this.#maxOffset === 0 ? 0 : Math.round((bounded / this.#maxOffset) * this.#maxScroll);
    this.#shift = this.#maxScroll === this.#maxOffset ? 0 : bounded - this.#scrollTop;
    if (this.#shift === 0) this.#scrollTop = bounded;
    return this.#scrollTop;
  }

  /** @returns the scrollTop by which a row is seen whole */
  reveal(index: number, above = 0): number {
    const top = index * this.rowHeight;
    if (top < this.offset + above) return this.scrollTo(top - above);
    if (top + this.rowHeight > this.offset + this.#viewport)
      return this.scrollTo(top + this.rowHeight - this.#viewport);
    return this.#scrollTop;
  }

  /** Rows in view, and `overscan` on both sides: [from, to). */
  range(overscan: number): { from: number; to: number } {
    const from = Math.floor(this.offset / this.rowHeight) - overscan;
    const to = Math.ceil((this.offset + this.#viewport) / this.rowHeight) + overscan;
    return { from: Math.max(0, from), to: Math.min(this.#rows, to) };
  }

  #fromProportion(scrollTop: number): number {
    return (scrollTop / this.#maxScroll) * this.#maxOffset;
  }
}
