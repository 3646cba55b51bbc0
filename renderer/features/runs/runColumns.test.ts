import { expect, test } from 'vitest';
import type { Run } from '../../../core/shared/run/run.ts';
import { runConfigSchema } from '../../../core/shared/run/runConfig.ts';
import { filterRuns, sortRuns } from './runColumns.ts';

const run = (name: string, more: Partial<Run>): Run =>
  ({
    name,
    state: 'completed',
    modelName: 'base',
    mixName: 'mix',
    note: '',
    step: 0,
    totalSteps: 10,
    loss: 1,
    tokensPerSecond: null,
    firstEvaluation: null,
    lastEvaluation: null,
    createdAt: 0,
    config: runConfigSchema.parse({ model: 'base', mix: 'mix' }),
    ...more,
  }) as Run;

const runs = [
  run('b', { loss: 2, createdAt: 1, state: 'running' }),
  run('a', { loss: null, createdAt: 2 }),
  run('c', {
    loss: 1,
    createdAt: 3,
    note: 'Baseline',
    config: runConfigSchema.parse({ model: 'base', mix: 'mix', method: 'lora' }),
  }),
];
const names = (list: Run[]) => list.map(({ name }) => name).join('');

test('what has no value stands last in both directions; equals stay newest first', () => {
  expect(names(sortRuns(runs, { key: 'loss', descending: false }))).toBe('cba');
  expect(names(sortRuns(runs, { key: 'loss', descending: true }))).toBe('bca');
  expect(names(sortRuns(runs, { key: 'model', descending: false }))).toBe('cab');
  expect(names(sortRuns(runs, { key: 'state', descending: false }))).toBe('bca');
});

test('a filter needs every word, anywhere', () => {
  expect(names(filterRuns(runs, 'LORA base'))).toBe('c');
  expect(names(filterRuns(runs, 'running'))).toBe('b');
  expect(names(filterRuns(runs, '  '))).toBe('bac');
  expect(names(filterRuns(runs, 'pesc baseline'))).toBe('');
});
