import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fakeStep } from '../../tests/support/fakeEngines.ts';
import { journalFile, openJournal, readJournal, removeJournal } from './journal.ts';
import type { Told } from './protocol.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'journal-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const open = () =>
  openJournal(dir, (error) => {
    throw error;
  });
const log = (message: string): Told => ({ type: 'log', level: 'info', message });
const left = () => readJournal(dir).map(({ line }) => line);

test('gives back what was told, to the bit', () => {
  const journal = open();
  const told: Told[] = [
    { type: 'phase', phase: 'loading' },
    { type: 'opened', opened: { stepZeroDifference: 0, quantizationDifference: null } },
    {
      type: 'steps',
      steps: [
        fakeStep(1, {
          loss: NaN,
          expertShares: Float32Array.of(1 / 3, 0.1),
          rowLosses: Float32Array.of(Math.PI, NaN),
        }),
      ],
    },
    {
      type: 'evaluation',
      evaluation: {
        step: 1,
        loss: 2,
        bySource: [{ source: 'a', loss: NaN, targetTokens: 3, rows: 1 }],
        evaluationMs: 1,
      },
    },
    { type: 'checkpoint', checkpoint: { step: 1, path: '/x', bytes: 5, problem: null } },
    { type: 'failed', error: { code: 'diverged', message: 'it did', place: { field: 'lr' } } },
  ];
  expect(told.map((each) => journal.write(each))).toEqual([1, 2, 3, 4, 5, 6]);
  expect(readJournal(dir).map((line) => line.told)).toEqual(told);
});

test('keeps what the host has not on disk, and no more', () => {
  const journal = open();
  for (let line = 1; line <= 5; line++) journal.write(log(`line ${line}`));
  journal.recorded(3);
  expect(left()).toEqual([4, 5]);
  journal.recorded(5);
  expect(statSync(journalFile(dir)).size).toBe(0);
  journal.write(log('six'));
  expect(left()).toEqual([6]);
  expect(readFileSync(journalFile(dir), 'utf8')).not.toContain('\0');
});

test('does not grow with a run that is always a little ahead', () => {
  const journal = open();
  const long = 'x'.repeat(500);
  for (let line = 1; line <= 2000; line++) {
    journal.write(log(long));
    journal.recorded(line - 1);
  }
  expect(left()).toEqual([2000]);
  expect(statSync(journalFile(dir)).size).toBeLessThan(100_000);
});

test('a line cut short is none; a next engine begins anew; none is no error', () => {
  open().write(log('whole'));
  appendFileSync(journalFile(dir), '{"line":2,"at":1,"told":{"type":"lo');
  expect(left()).toEqual([1]);
  open();
  expect(left()).toEqual([]);
  removeJournal(dir);
  expect(left()).toEqual([]);
});

test('a folder that takes no writes is told once and stops nothing', () => {
  const told: Error[] = [];
  const journal = openJournal(join(dir, 'absent'), (error) => told.push(error));
  expect([journal.write(log('a')), journal.write(log('b'))]).toEqual([1, 2]);
  journal.recorded(1);
  journal.sync();
  expect(told).toHaveLength(1);
});
