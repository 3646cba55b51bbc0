import { expect, test } from 'vitest';
import { TallScroll } from './TallScroll.ts';

const million = 1_000_000;
const viewport = 600;
function tall(rows = million): TallScroll {
  const scroll = new TallScroll(36);
  scroll.resize(rows, viewport);
  return scroll;
}

test('few rows scroll as they always do', () => {
  const scroll = tall(1000);
  expect(scroll.height).toBe(36_000);
  expect(scroll.scrolled(5000)).toBe(5000);
  expect(scroll.shift).toBe(0);
  expect(scroll.range(0)).toEqual({ from: 138, to: 156 });
});

test('a million rows: the element stays low, the ends are the ends', () => {
  const scroll = tall();
  expect(scroll.height).toBe(TallScroll.maxHeight);
  expect(scroll.range(0).from).toBe(0);
  const end = TallScroll.maxHeight - viewport;
  expect(scroll.scrolled(end)).toBe(end);
  expect(scroll.range(0).to).toBe(million);
  expect(scroll.offset).toBe(36 * million - viewport);
  expect(scroll.scrolled(0)).toBe(0);
  expect(scroll.range(0).from).toBe(0);
});

test('the wheel moves by its own pixels, at any depth', () => {
  const scroll = tall();
  scroll.scrollTo(18_000_000);
  const before = scroll.offset;
  let top = scroll.scrolled(scroll.settle() + 120);
  expect(scroll.offset).toBe(before + 120);
  for (let i = 0; i < 50; i++) top = scroll.scrolled(top + 100);
  expect(scroll.offset).toBe(before + 5120);
  // Settling moves the bar, never the rows.
  const seen = scroll.offset;
  scroll.settle();
  expect(scroll.offset).toBe(seen);
});

test('the bar moves in proportion', () => {
  const scroll = tall();
  scroll.scrolled(Math.round((TallScroll.maxHeight - viewport) / 2));
  expect(Math.abs(scroll.range(0).from - million / 2)).toBeLessThan(20);
});

test('every row can be revealed whole', () => {
  const scroll = tall();
  for (const index of [0, 1, 17, 359_999, 360_001, 719_999, 999_998, 999_999, 3]) {
    scroll.reveal(index);
    expect(scroll.offset, `row ${index}`).toBeLessThanOrEqual(index * 36);
    expect(scroll.offset + viewport, `row ${index}`).toBeGreaterThanOrEqual((index + 1) * 36);
  }
});

test('a scroll that runs against an end goes on to the rows that are left', () => {
  const scroll = tall();
  // The bar lags behind after much small scrolling; at the element's end there are still rows.
  let top = scroll.scrollTo(35_990_000);
  for (let i = 0; i < 400; i++) top = scroll.scrolled(Math.min(TallScroll.maxHeight - viewport, top + 100));
  expect(scroll.range(0).to).toBe(million);
});

test('fewer rows, another size: what is seen stays in bounds', () => {
  const scroll = tall();
  scroll.scrollTo(36 * million);
  scroll.resize(100, viewport);
  expect(scroll.range(0).to).toBe(100);
  scroll.resize(5, viewport);
  expect(scroll.range(0)).toEqual({ from: 0, to: 5 });
  expect(scroll.offset).toBe(0);
});
