import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatCount, formatDuration, formatMetric, formatShare } from '../../shared/format.ts';
import type { Run } from '../../shared/run/run.ts';
import { parseFilter } from '../../shared/run/runFilter.ts';
import { namedProperty, sortRuns, type RunProperty } from '../../shared/run/runProperties.ts';
import { flag, text } from '../options.ts';
import type { Output } from '../Output.ts';
import type { VerbContext } from '../Verb.ts';

const pageSize = 500;

/** Every run, a page at a time: none keeps the host from its other work. */
export async function readAllRuns(client: Client): Promise<Run[]> {
  const all: Run[] = [];
  for (;;) {
    const after = all.at(-1)?.id;
    const page = await client.call('listRuns', { limit: pageSize, ...(after !== undefined && { after }) });
    all.push(...page);
    if (page.length < pageSize) return all;
  }
}

export async function listRuns(
  client: Client,
  options: VerbContext['options'],
  output: Output,
): Promise<void> {
  const test = filterOf(text(options, 'filter') ?? '');
  const columns = text(options, 'columns')
    ?.split(',')
    .map((name) => namedProperty(name.trim()));
  const [sortBy, descending] = sortOf(text(options, 'sort'));
  const all = await readAllRuns(client);
  const inTrash = flag(options, 'trash');
  const runs = sortRuns(
    all.filter(
      (run) =>
        (run.trashedAt !== null) === inTrash &&
        (!run.archived || inTrash || flag(options, 'archived')) &&
        test(run),
    ),
    sortBy,
    descending,
  );
  output.document(runs);
  if (all.length === 0) {
    output.line('No runs yet: `caravan demo` makes one, `caravan train run.yaml` starts yours.');
    return;
  }
  if (runs.length === 0) {
    output.line(inTrash ? 'The trash holds no run.' : 'No run matches.');
    return;
  }
  if (columns)
    output.table(
      columns.map(({ name }) => name),
      runs.map((run) => columns.map((column) => cell(column, run))),
    );
  else output.table(usualHeader, runs.map(usualCells));
}

const usualHeader = ['id', 'name', 'state', 'method', 'step', 'loss', 'held out', 'tokens/s', 'took', 'tags'];

function usualCells(run: Run): (string | null)[] {
  return [
    run.id,
    run.starred ? `${run.name} *` : run.name,
    run.state,
    run.config.method,
    `${run.step}/${run.totalSteps ?? '?'}`,
    run.loss === null ? null : formatMetric(run.loss),
    run.lastEvaluation ? formatMetric(run.lastEvaluation.loss) : null,
    run.tokensPerSecond === null ? null : formatCount(Math.round(run.tokensPerSecond)),
    formatDuration(run.elapsedMs),
    run.tags.length > 0 ? run.tags.join(' ') : null,
  ];
}

function cell({ kind, name, of }: RunProperty, run: Run): string | number | null {
  const value = of(run);
  if (value === null || typeof value === 'string') return value;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (kind === 'date') return new Date(value).toISOString().slice(0, 16).replace('T', ' ');
  if (kind === 'time') return formatDuration(value);
  if (kind === 'share') return formatShare(value);
  return /loss|heldOut/i.test(name) ? formatMetric(value) : value;
}

/** @throws `bad_option` that shows where the expression is wrong */
function filterOf(expression: string): (run: Run) => boolean {
  const filter = parseFilter(expression);
  if ('matches' in filter) return filter.matches;
  const { message, at, length } = filter.problem;
  throw new CaravanError(
    'bad_option',
    `${message}\n  ${expression}\n  ${' '.repeat(at)}${'^'.repeat(length)}`,
    {
      place: { field: '--filter', column: at + 1 },
      mend: 'Write it like loss < 1.2 and method = pesc and tag:demo.',
    },
  );
}

/** `-loss`: descending. By default the newest first. */
function sortOf(given: string | undefined): [name: string, descending: boolean] {
  if (given === undefined) return ['created', true];
  const descending = given.startsWith('-');
  return [namedProperty(descending ? given.slice(1) : given).name, descending];
}
