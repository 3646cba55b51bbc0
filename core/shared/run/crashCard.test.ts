import { expect, test } from 'vitest';
import { deviceFailedExitCode, makeCrashCard } from './crashCard.ts';
import { crashCardSchema } from './run.ts';

const nothing = { step: null, checkpoint: null, memoryBytes: null };
const some = { step: 17, checkpoint: '/runs/a/checkpoints/step-000010', memoryBytes: 5e8 };

test.each([
  [{ exitCode: null, signal: 'SIGKILL' }, /short of memory/],
  [{ exitCode: 137, signal: null }, /short of memory/],
  [{ exitCode: null, signal: 'SIGSEGV' }, /bug/],
  [{ exitCode: 134, signal: null }, /bug/],
  [{ exitCode: null, signal: 'SIGBUS' }, /cut short/],
  [{ exitCode: null, signal: 'SIGTERM' }, /asked to end/],
  [{ exitCode: 3, signal: null }, /exit code 3/],
])('advice for %j', (death, advice) => {
  const card = crashCardSchema.parse(makeCrashCard({ ...death, stderrTail: [] }, some));
  expect(card.advice).toMatch(advice);
  expect(card.advice).toContain('resume the run');
  expect(card).toMatchObject({ lastStep: 17, lastCheckpoint: some.checkpoint, memoryBytes: 5e8, line: null });
});

test('does not lay an engine that hung at the door of others', () => {
  const stderrTail = ['no sign of life for 120 s: killed as hung'];
  const card = makeCrashCard({ exitCode: null, signal: 'SIGKILL', stderrTail }, some);
  expect(card).toMatchObject({
    line: stderrTail[0],
    advice: expect.stringMatching(/hung, which is a bug/) as string,
  });
});

test('picks the telling line, and memory over the signal', () => {
  const stderrTail = ['step 3', 'terminate called after throwing std::bad_alloc', 'at 0x1234'];
  const card = makeCrashCard({ exitCode: null, signal: 'SIGABRT', stderrTail }, nothing);
  expect(card.line).toBe(stderrTail[1]);
  expect(card.advice).toMatch(/ran out of memory/);
  expect(card.advice).toContain('starts over');
});

test('an engine whose GPU failed says which, in what, and what to try', () => {
  const stderrTail = [
    'error: cuda:1: attention_backward: CUDA says cudaErrorIllegalAddress (an illegal memory access was encountered)',
  ];
  const card = makeCrashCard({ exitCode: deviceFailedExitCode, signal: null, stderrTail }, some);
  expect(card.line).toBe(stderrTail[0]);
  expect(card.advice).toMatch(/GPU failed.*resume the run.*nvidia-smi/);
});
