/** What the table of runs shows, row by row: runs, or headings of groups with their runs. */
import type { Run } from '../../../core/shared/run/run.ts';
import { runProperty, sortRuns } from '../../../core/shared/run/runProperties.ts';
import { showSetting } from '../../composables/configDifference.ts';

export interface Sort {
  by: string;
  descending: boolean;
}

export type RunRow =
  | { kind: 'run'; id: string; run: Run }
  | { kind: 'group'; id: string; title: string; runs: number; best: number | null; folded: boolean };

/** Properties that runs are grouped by: few values each. */
export function canGroup(name: string): boolean {
  const property = runProperty(name);
  if (!property || ['name', 'id', 'note'].includes(name)) return false;
  return property.kind === 'text' || property.kind === 'flag' || property.setting;
}

/** Groups stand in the order of their first run. A run with several tags stands under each. */
export function rowsOf(
  runs: readonly Run[],
  sort: Sort,
  groupBy: string | null,
  folded: ReadonlySet<string>,
): RunRow[] {
  const sorted = sortRuns(runs, sort.by, sort.descending);
  if (groupBy === null) return sorted.map((run) => ({ kind: 'run', id: run.id, run }));
  const groups = new Map<string, Run[]>();
  for (const run of sorted)
    for (const title of titlesOf(run, groupBy)) {
      const group = groups.get(title);
      if (group) group.push(run);
      else groups.set(title, [run]);
    }
  return [...groups].flatMap(([title, members]) => {
    const losses = members.flatMap((run) => run.lastEvaluation?.loss ?? []);
    const heading: RunRow = {
      kind: 'group',
      id: `group:${title}`,
      title,
      runs: members.length,
      best: losses.length > 0 ? Math.min(...losses) : null,
      folded: folded.has(title),
    };
    if (heading.folded) return [heading];
    return [heading, ...members.map((run): RunRow => ({ kind: 'run', id: `${title}:${run.id}`, run }))];
  });
}

function titlesOf(run: Run, groupBy: string): string[] {
  if (groupBy === 'tags') return run.tags.length > 0 ? run.tags : ['no tag'];
  const property = runProperty(groupBy);
  const value = property?.of(run) ?? undefined;
  return [value === undefined ? 'none' : showSetting(value)];
}
