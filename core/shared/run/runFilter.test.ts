import { describe, expect, test } from 'vitest';
import type { Run } from './run.ts';
import { runConfigSchema } from './runConfig.ts';
import { parseFilter } from './runFilter.ts';
import { runProperties, sortRuns } from './runProperties.ts';

const now = new Date(2026, 10, 25, 12).getTime();
const hour = 3_600_000;
const evaluation = (step: number, loss: number) => ({ step, loss, bySource: [] });
const run = (name: string, more: Partial<Run>, config: object = {}): Run =>
  ({
    id: `id${name}`,
    name,
    state: 'completed',
    modelName: 'base',
    mixName: 'mix',
    note: '',
    tags: [],
    starred: false,
    archived: false,
    trashedAt: null,
    step: 5,
    totalSteps: 10,
    loss: 1,
    tokensPerSecond: null,
    firstEvaluation: null,
    lastEvaluation: null,
    elapsedMs: 0,
    attempt: 0,
    createdAt: now,
    endedAt: null,
    config: runConfigSchema.parse({ model: 'base', mix: 'mix', ...config }),
    ...more,
  }) as Run;

const runs = [
  run('a', { loss: null, tags: ['Demo'], elapsedMs: 2 * hour, createdAt: now - hour }),
  run('b', { loss: 1.1, tags: ['demo', 'paper'], starred: true, createdAt: now - 50 * hour }),
  run(
    'c',
    {
      loss: 2,
      state: 'running',
      note: 'Baseline of "x"',
      firstEvaluation: evaluation(0, 2),
      lastEvaluation: evaluation(5, 1.5),
      createdAt: new Date(2026, 10, 1, 9).getTime(),
    },
    { method: 'lora', lr: 2e-5 },
  ),
];
function found(text: string): string {
  const filter = parseFilter(text, now);
  if ('problem' in filter) throw new Error(`${filter.problem.message} at ${filter.problem.at}`);
  return runs
    .filter(filter.matches)
    .map(({ name }) => name)
    .join('');
}

test.each([
  ['', 'abc'],
  ['loss < 1.2 and method = pesc and tag:demo', 'b'],
  ['loss<1.2', 'b'],
  ['loss = none', 'a'],
  ['not loss = none', 'bc'],
  ['loss != 2', 'b'],
  ['tag:DEMO', 'ab'],
  ['tag = paper or state = running', 'bc'],
  ['tag != paper', 'ac'],
  ['(tag:paper or state=running) and not is:starred', 'c'],
  ['tag:paper or state=running and is:starred', 'b'],
  ['is:live', 'c'],
  ['starred = yes', 'b'],
  ['lr <= 2e-5', 'c'],
  ['numExperts = 8', 'ab'],
  ['NUMEXPERTS = 8 name = a', 'a'],
  ['change < -20%', 'c'],
  ['progress >= 50%', 'abc'],
  ['took > 90min', 'a'],
  ['created > 2d', 'a'],
  ['created = 2026-11-01', 'c'],
  ['created > 2026-11-01', 'ab'],
  ['created >= 2026-11-01', 'abc'],
  ['created = today', 'a'],
  ['LORA base', 'c'],
  ['note ~ baseline', 'c'],
  [`note = 'baseline of "x"'`, 'c'],
  ['"of "', 'c'],
  ['method != pesc', 'c'],
])('%s finds %s', (text, names) => {
  expect(found(text)).toBe(names);
});

describe('what is wrong is said with its place', () => {
  test.each([
    ['los < 1', 'do you mean loss?', 0, 3],
    ['name = a and quux > 1', "runs have no 'quux'", 13, 4],
    ['loss < ', 'A value is missing', 7, 1],
    ['loss < abc', "loss is a number, not 'abc'", 7, 3],
    ['took > 5', 'took is a time', 7, 1],
    ['created > yesterday', 'created is a date', 10, 9],
    ['created > 2026-02-31', 'created is a date', 10, 10],
    ['state < running', 'state is text', 6, 1],
    ['loss ~ 1', 'loss is no text', 5, 1],
    ['starred = 3', 'starred is yes or no', 10, 1],
    ['(loss < 1', 'is not closed', 0, 1],
    ['loss < 1)', 'closes nothing', 8, 1],
    ['and loss < 1', "nothing before 'and'", 0, 3],
    ['loss < 1 and', 'missing at the end', 12, 1],
    ['name = "a', 'not closed', 7, 2],
    ['is:blue', 'is: takes starred', 0, 7],
    ['tag:', 'a tag is missing', 0, 4],
    ['= 3', "nothing before '='", 0, 1],
    ['a ! b', "'!' means nothing here", 2, 1],
  ])('%s', (text, message, at, length) => {
    expect(parseFilter(text, now)).toEqual({
      problem: { message: expect.stringContaining(message) as string, at, length },
    });
  });
});

test('every property has a value of its kind, and sorts', () => {
  expect(runProperties.length).toBeGreaterThan(50);
  const types = {
    number: 'number',
    share: 'number',
    time: 'number',
    date: 'number',
    text: 'string',
    flag: 'boolean',
  };
  for (const { name, kind, of } of runProperties) {
    for (const one of runs) expect([types[kind], 'object'], name).toContain(typeof of(one));
    expect(sortRuns(runs, name, false)).toHaveLength(3);
  }
  expect(new Set(runProperties.map(({ name }) => name)).size).toBe(runProperties.length);
  const names = (by: string, descending: boolean) =>
    sortRuns(runs, by, descending)
      .map(({ name }) => name)
      .join('');
  expect(names('loss', false)).toBe('bca');
  expect(names('loss', true)).toBe('cba');
  expect(names('model', false)).toBe('abc');
  expect(names('state', false)).toBe('cab');
});
