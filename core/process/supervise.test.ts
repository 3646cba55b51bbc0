import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { superviseProcess, type ChildHandle } from './supervise.ts';

/** A process that does what the test says. */
function fakeChild(options: { endsWhenAsked: boolean }) {
  let onMessage: (message: unknown) => void = () => {};
  let onOutput: (text: string) => void = () => {};
  let onExit: (exitCode: number | null, signal: string | null) => void = () => {};
  const child: ChildHandle = {
    pid: 77,
    send: () => {},
    disconnect: () => options.endsWhenAsked && onExit(0, null),
    kill: () => onExit(null, 'SIGKILL'),
    onMessage: (listener) => (onMessage = listener),
    onOutput: (listener) => (onOutput = listener),
    onExit: (listener) => (onExit = listener),
  };
  return {
    spawn: () => child,
    say: (message: unknown) => onMessage(message),
    write: (text: string) => onOutput(text),
    exit: (code: number | null, signal: string | null) => onExit(code, signal),
  };
}

const asked = { entry: 'main.ts', name: 'test', onMessage: () => {} };

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('keeps the last lines of what a process wrote, cut anywhere, with how it ended', async () => {
  const fake = fakeChild({ endsWhenAsked: true });
  const child = superviseProcess({ ...asked, spawn: fake.spawn });
  for (let line = 0; line < 60; line++) fake.write(`line ${line}\n`);
  fake.write('the la');
  fake.write('st\n\nwords');
  fake.exit(134, null);
  const end = await child.ended;
  expect(end).toMatchObject({ exitCode: 134, signal: null });
  expect(end.stderrTail).toHaveLength(50);
  expect(end.stderrTail.slice(-3)).toEqual(['line 59', 'the last', 'words']);
});

test('kills a process that was heard and fell silent, and says why', async () => {
  const fake = fakeChild({ endsWhenAsked: false });
  const child = superviseProcess({ ...asked, spawn: fake.spawn, silenceMs: 5000 });
  const ended = vi.fn();
  void child.ended.then(ended);
  for (let second = 0; second < 20; second++) {
    fake.say({ type: 'beat' });
    await vi.advanceTimersByTimeAsync(1000);
  }
  await vi.advanceTimersByTimeAsync(3000);
  expect(ended).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(2000);
  expect(ended).toHaveBeenCalledWith({
    exitCode: null,
    signal: 'SIGKILL',
    stderrTail: ['no sign of life for 5 s: killed as hung'],
  });
});

test('gives a process a minute to begin', async () => {
  const fake = fakeChild({ endsWhenAsked: false });
  const child = superviseProcess({ ...asked, spawn: fake.spawn, silenceMs: 5000 });
  const ended = vi.fn();
  void child.ended.then(ended);
  await vi.advanceTimersByTimeAsync(59_000);
  expect(ended).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1000);
  expect(ended).toHaveBeenCalledOnce();
});

test('asks before it kills', async () => {
  const willing = fakeChild({ endsWhenAsked: true });
  expect(await superviseProcess({ ...asked, spawn: willing.spawn }).close()).toMatchObject({ exitCode: 0 });
  const deaf = fakeChild({ endsWhenAsked: false });
  const closing = superviseProcess({ ...asked, spawn: deaf.spawn }).close(300);
  const settled = vi.fn();
  void closing.then(settled);
  await vi.advanceTimersByTimeAsync(299);
  expect(settled).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(await closing).toMatchObject({ signal: 'SIGKILL' });
});
