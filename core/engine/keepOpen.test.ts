import { expect, test, vi } from 'vitest';
import { keepOpen } from './keepOpen.ts';

function things() {
  const disposed: string[] = [];
  const open = (name: string) =>
    vi.fn(() => Promise.resolve({ name, dispose: () => void disposed.push(name) }));
  return { disposed, open };
}

test('keeps what was used last and closes the rest', async () => {
  const { disposed, open } = things();
  const kept = keepOpen<{ name: string; dispose(): void }>(2);
  const opens = { a: open('a'), b: open('b'), c: open('c') };
  const use = (key: 'a' | 'b' | 'c') => kept.with(key, opens[key], ({ name }) => Promise.resolve(name));
  expect(await use('a')).toBe('a');
  await use('b');
  await use('a');
  await use('c');
  expect(disposed).toEqual(['b']);
  await use('a');
  expect(opens.a).toHaveBeenCalledTimes(1);
  await kept.closeIdle();
  expect(disposed).toEqual(['b', 'c', 'a']);
});

test('opens once for all who ask at the same time, and never closes under one of them', async () => {
  const { disposed, open } = things();
  const kept = keepOpen<{ name: string; dispose(): void }>(1);
  const openA = open('a');
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  const first = kept.with('a', openA, () => held);
  const second = kept.with('a', openA, () => Promise.resolve());
  await second;
  expect(openA).toHaveBeenCalledTimes(1);
  await kept.with('b', open('b'), () => Promise.resolve());
  await kept.closeIdle();
  expect(disposed).toEqual(['b']);
  release();
  await first;
  await kept.closeIdle();
  expect(disposed).toEqual(['b', 'a']);
});

test('forgets what could not be opened', async () => {
  const kept = keepOpen<{ dispose(): void }>(1);
  const failing = () => Promise.reject(new Error('no such file'));
  await expect(kept.with('a', failing, () => Promise.resolve())).rejects.toThrow('no such file');
  const { open } = things();
  await kept.with('a', open('a'), () => Promise.resolve());
  await expect(kept.with('a', failing, () => Promise.reject(new Error('in use')))).rejects.toThrow('in use');
});
