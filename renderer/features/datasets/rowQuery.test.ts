import { expect, test } from 'vitest';
import { lookQuerySchema } from '../../../core/shared/dataset/look.ts';
import { describeFilter, nextSort, readQuery, writeQuery } from './rowQuery.ts';

test('a query comes back from its address as it was', () => {
  const query = lookQuerySchema.parse({
    search: '"two words" -not',
    filters: [
      { kind: 'range', column: 'answerChars', min: 10 },
      { kind: 'oneOf', column: 'label', values: ['a, b', '"c"'] },
    ],
    sort: { column: 'tokens', descending: true },
  });
  expect(readQuery('rows', writeQuery(query))).toEqual(query);
  expect(writeQuery(lookQuerySchema.parse({}))).toEqual({
    find: undefined,
    where: undefined,
    sort: undefined,
  });
});

test('an address that is none asks for all rows', () => {
  const all = lookQuerySchema.parse({ table: 'rejects' });
  expect(readQuery('rejects', { where: '{"kind', sort: 'nothing down', find: ['a', 'b'] })).toEqual(all);
  expect(readQuery('rejects', { where: '[{"kind":"range","column":"secrets"}]' })).toEqual(all);
});

test('a column sorts up, down, and no more', () => {
  const up = nextSort(null, 'line');
  const down = nextSort(up, 'line');
  expect([up, down, nextSort(down, 'line')]).toEqual([
    { column: 'line', descending: false },
    { column: 'line', descending: true },
    null,
  ]);
});

test('filters in words', () => {
  expect(describeFilter({ kind: 'range', column: 'tokens', min: 1000, max: 2048 })).toBe(
    'Tokens 1,000–2,048',
  );
  expect(describeFilter({ kind: 'range', column: 'tokens', max: 5 })).toBe('Tokens ≤ 5');
  expect(describeFilter({ kind: 'oneOf', column: 'fate', values: ['cut'] })).toBe('Fit: cut');
  expect(describeFilter({ kind: 'flag', column: 'duplicate', value: true })).toBe('Duplicates');
});
