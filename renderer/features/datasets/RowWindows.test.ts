import { expect, test } from 'vitest';
import { RowWindows } from './RowWindows.ts';

function scripted(kept = 60) {
  const asked: { from: number; answer: () => void; fail: () => void }[] = [];
  const told: string[] = [];
  const windows = new RowWindows<number>(
    (from, count) =>
      new Promise((resolve, reject) =>
        asked.push({
          from,
          answer: () => resolve(Array.from({ length: count }, (_, index) => from + index)),
          fail: () => reject(new Error('lost')),
        }),
      ),
    { changed: () => told.push('changed'), failed: (error) => told.push((error as Error).message) },
    10,
    kept,
  );
  return { windows, asked, told };
}
const turn = () => new Promise((resolve) => setTimeout(resolve));

test('reads what is wanted, two windows at a time, and each once', async () => {
  const { windows, asked, told } = scripted();
  windows.want(5, 38);
  windows.want(5, 38);
  expect(asked.map(({ from }) => from)).toEqual([0, 10]);
  asked[0]!.answer();
  await turn();
  expect(told).toEqual(['changed']);
  expect(windows.at(7)).toBe(7);
  expect(windows.at(17)).toBeUndefined();
  expect(asked.map(({ from }) => from)).toEqual([0, 10, 20]);
});

test('what scrolled past is not asked for any more', async () => {
  const { windows, asked } = scripted();
  windows.want(0, 60);
  windows.want(900, 910);
  asked[0]!.answer();
  asked[1]!.answer();
  await turn();
  expect(asked.map(({ from }) => from)).toEqual([0, 10, 900]);
});

test('keeps what was used last', async () => {
  const { windows, asked } = scripted(2);
  for (const from of [0, 10]) {
    windows.want(from, from + 1);
    asked.at(-1)!.answer();
    await turn();
  }
  windows.want(0, 1);
  windows.want(20, 21);
  asked.at(-1)!.answer();
  await turn();
  expect([windows.at(0), windows.at(10), windows.at(20)]).toEqual([0, undefined, 20]);
});

test('a window that failed is told, and read again when it is wanted again', async () => {
  const { windows, asked, told } = scripted();
  windows.want(0, 1);
  asked[0]!.fail();
  await turn();
  expect(told).toEqual(['lost']);
  windows.want(0, 1);
  expect(asked).toHaveLength(2);
  windows.end();
  asked[1]!.answer();
  await turn();
  expect(told).toEqual(['lost']);
});
