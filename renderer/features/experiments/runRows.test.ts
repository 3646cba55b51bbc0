import { expect, test } from 'vitest';
import type { Run } from '../../../core/shared/run/run.ts';
import { runConfigSchema } from '../../../core/shared/run/runConfig.ts';
import { canGroup, rowsOf } from './runRows.ts';

const run = (id: string, createdAt: number, more: Partial<Run> = {}): Run =>
  ({
    id,
    name: id,
    state: 'completed',
    tags: [],
    loss: null,
    lastEvaluation: null,
    createdAt,
    config: runConfigSchema.parse({ model: 'base', mix: 'mix' }),
    ...more,
  }) as Run;
const evaluation = (loss: number) => ({ step: 1, loss, bySource: [] });
const runs = [
  run('a', 1, { tags: ['x', 'y'], lastEvaluation: evaluation(2) }),
  run('b', 2, { tags: ['y'], lastEvaluation: evaluation(1.5) }),
  run('c', 3, { config: runConfigSchema.parse({ model: 'base', mix: 'mix', method: 'lora' }) }),
];
const newest = { by: 'created', descending: true };
const ids = (groupBy: string | null, folded: string[] = []) =>
  rowsOf(runs, newest, groupBy, new Set(folded)).map((row) =>
    row.kind === 'run' ? row.run.id : `${row.title} ${row.runs} ${row.best ?? '-'}`,
  );

test('groups stand by their first run, with their best held-out loss', () => {
  expect(ids(null)).toEqual(['c', 'b', 'a']);
  expect(ids('method')).toEqual(['lora 1 -', 'c', 'pesc 2 1.5', 'b', 'a']);
  expect(ids('method', ['pesc'])).toEqual(['lora 1 -', 'c', 'pesc 2 1.5']);
});

test('a run stands under each of its tags, as a row of its own', () => {
  expect(ids('tags')).toEqual(['no tag 1 -', 'c', 'y 2 1.5', 'b', 'a', 'x 1 2', 'a']);
  const rows = rowsOf(runs, newest, 'tags', new Set());
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
});

test('a setting that a method has no use for is none', () => {
  expect(ids('numExperts')).toEqual(['none 1 -', 'c', '8 2 1.5', 'b', 'a']);
  expect(['method', 'tags', 'lr', 'starred'].every(canGroup)).toBe(true);
  expect(['name', 'note', 'loss', 'nothing'].some(canGroup)).toBe(false);
});
