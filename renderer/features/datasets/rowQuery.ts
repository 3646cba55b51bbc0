/** A query over rows as it stands in the address, so that what one sees can be sent to another. */
import * as z from 'zod';
import {
  lookFilterSchema,
  lookQuerySchema,
  sortColumns,
  type LookFilter,
  type LookQuery,
  type LookTable,
  type SortColumn,
} from '../../../core/shared/dataset/look.ts';

type Parameters = Record<string, string | undefined>;

/** What is no query is left out: an address may come from anywhere. */
export function readQuery(table: LookTable, parameters: Record<string, unknown>): LookQuery {
  const text = (name: string) => (typeof parameters[name] === 'string' ? parameters[name] : '');
  const [column, direction] = text('sort').split(' ');
  const sorted = sortColumns.find((name) => name === column);
  return lookQuerySchema.parse({
    table,
    search: text('find').slice(0, 1000),
    filters: readFilters(text('where')),
    sort: sorted ? { column: sorted, descending: direction === 'down' } : null,
  });
}

export function writeQuery({ search, filters, sort }: LookQuery): Parameters {
  return {
    find: search === '' ? undefined : search,
    where: filters.length === 0 ? undefined : JSON.stringify(filters),
    sort: sort ? `${sort.column} ${sort.descending ? 'down' : 'up'}` : undefined,
  };
}

function readFilters(text: string): LookFilter[] {
  if (text === '') return [];
  try {
    return z.array(lookFilterSchema).max(20).parse(JSON.parse(text));
  } catch {
    return [];
  }
}

/** The order after a click on a column: up, down, then that of the file. */
export function nextSort(sort: LookQuery['sort'], column: SortColumn): LookQuery['sort'] {
  if (sort?.column !== column) return { column, descending: false };
  return sort.descending ? null : { column, descending: true };
}

export const columnWords: Record<SortColumn, string> = {
  key: 'Row',
  line: 'Line',
  turns: 'Turns',
  promptChars: 'Prompt characters',
  answerChars: 'Answer characters',
  tokens: 'Tokens',
  targetTokens: 'Trained tokens',
  source: 'Source',
  label: 'Label',
  split: 'Split',
  file: 'File',
  fate: 'Fit',
  reason: 'Reason',
  field: 'Field',
  duplicate: 'Duplicate',
  system: 'System prompt',
};
export const fateWords = { whole: 'fits', cut: 'cut', untrained: 'nothing trained' } as const;

/** A filter in a few words. */
export function describeFilter(filter: LookFilter): string {
  const column = columnWords[filter.column];
  if (filter.kind === 'flag')
    return filter.column === 'duplicate'
      ? filter.value
        ? 'Duplicates'
        : 'No duplicates'
      : `${filter.value ? 'With' : 'Without'} system prompt`;
  if (filter.kind === 'oneOf')
    return `${column}: ${filter.values
      .map((value) =>
        filter.column === 'fate' ? fateWords[value as keyof typeof fateWords] : value || 'none',
      )
      .join(', ')}`;
  const { min, max } = filter;
  const number = (value: number) => value.toLocaleString('en');
  if (min === undefined) return `${column} ≤ ${number(max ?? 0)}`;
  if (max === undefined) return `${column} ≥ ${number(min)}`;
  return `${column} ${number(min)}–${number(max)}`;
}
