import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes, formatMetric, formatShare } from '../../shared/format.ts';
import type { Run, Step } from '../../shared/run/run.ts';
import { choice, number, text } from '../options.ts';
import type { Output } from '../Output.ts';
import { listRuns } from '../runs/listRuns.ts';
import { markActions, markRuns } from '../runs/markRuns.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'The history of runs: list, mark, show, compare, export; stop or pause one.',
  usage:
    'runs [list [--filter EXPRESSION] | show RUN [--step N] | compare RUN RUN… | export RUN --out FILE [--format csv|jsonl] | tag|star|unstar|archive|unarchive|trash|restore|remove RUN… | note RUN TEXT | rename RUN NAME | stop|pause|continue RUN]',
  help: `RUN is an id, the start of one, or a name.
--filter E     of list: 'loss < 1.2 and method = pesc and tag:demo', with and, or, not, ( ), =, !=, <, <=, >, >=, ~ (contains),
               tag:T, is:starred, is:live, and words that occur somewhere; times as 90s, 2h, dates as 2026-11-25 or 7d
--sort NAME    of list: by any property or setting, -NAME the largest first (default: -created)
--columns A,B  of list: which properties to show
--archived     of list: those in the archive too
--trash        of list: what lies in the trash
--add, --drop  of tag: a tag, may be given several times
--step N       of show: the rows that step N saw, each with its source, file, line and hash`,
  options: {
    out: { type: 'string' },
    format: { type: 'string' },
    step: { type: 'string' },
    filter: { type: 'string' },
    sort: { type: 'string' },
    columns: { type: 'string' },
    archived: { type: 'boolean' },
    trash: { type: 'boolean' },
    add: { type: 'string', multiple: true },
    drop: { type: 'string', multiple: true },
  },
  async run({ words, options, output, cwd, connect }) {
    const [action = 'list', ...rest] = words;
    const client = await connect();
    const find = (refs: string[]) => Promise.all(refs.map((ref) => client.call('findRun', { ref })));
    const one = async () => {
      const [ref, extra] = rest;
      if (ref === undefined || extra !== undefined)
        throw new CaravanError('bad_option', `runs ${action} takes one run`);
      return client.call('findRun', { ref });
    };
    switch (action) {
      case 'list':
        await listRuns(client, options, output);
        return 0;
      case 'show': {
        const step = number(options, 'step');
        if (step === undefined) await showRun(client, await one(), output);
        else await showStep(client, await one(), step, output);
        return 0;
      }
      case 'compare':
        if (rest.length < 2) throw new CaravanError('bad_option', 'runs compare takes at least two runs');
        compareRuns(await find(rest), output);
        return 0;
      case 'export': {
        const out = text(options, 'out');
        if (out === undefined) throw new CaravanError('bad_option', '--out FILE is missing');
        const format =
          choice(options, 'format', ['csv', 'jsonl'] as const) ?? (out.endsWith('.csv') ? 'csv' : 'jsonl');
        const { id } = await one();
        const steps = await readAllSteps(client, id);
        await writeFile(
          resolve(cwd, out),
          format === 'csv' ? toCsv(steps) : steps.map((s) => `${JSON.stringify(s)}\n`).join(''),
        );
        output.document({ file: resolve(cwd, out), steps: steps.length });
        output.line(`${steps.length} steps written to ${out}`);
        return 0;
      }
      case 'note':
      case 'rename': {
        const [ref, given, extra] = rest;
        if (ref === undefined || given === undefined || extra !== undefined)
          throw new CaravanError(
            'bad_option',
            `runs ${action} takes a run and the ${action === 'note' ? 'note' : 'name'}, quoted`,
          );
        const { id } = await client.call('findRun', { ref });
        const run = await client.call('updateRun', {
          id,
          ...(action === 'note' ? { note: given } : { name: given }),
        });
        output.document(run);
        output.line(`${run.name}: ${run.note === '' ? 'no note' : run.note}`);
        return 0;
      }
      case 'stop':
      case 'pause':
      case 'continue': {
        const call = ({ stop: 'stopRun', pause: 'pauseRun', continue: 'continueRun' } as const)[action];
        const run = await client.call(call, { id: (await one()).id });
        output.document(run);
        output.line(`${run.name}: ${run.state}`);
        return 0;
      }
      default: {
        const mark = markActions.find((name) => name === action);
        if (mark === undefined)
          throw new CaravanError(
            'bad_option',
            `runs ${action}: expected list, show, compare, export, note, rename, ${markActions.join(', ')}, stop, pause or continue`,
          );
        await markRuns(client, mark, await find(rest), options, output);
        return 0;
      }
    }
  },
};

async function showRun(client: Client, run: Run, output: Output): Promise<void> {
  const evaluations = await client.call('readEvaluations', { id: run.id });
  const prediction = await client.call('readPrediction', { id: run.id });
  output.document({ ...run, evaluations, prediction });
  output.line(`${run.name} (${run.id}): ${run.state}, step ${run.step} of ${run.totalSteps ?? '?'}`);
  output.line(`model ${run.modelName}, mix ${run.mixName}, method ${run.config.method}`);
  output.line(`folder ${run.dir}`);
  if (run.stepZeroDifference !== null)
    output.line(`step-0 difference from the stored base: ${run.stepZeroDifference}`);
  for (const [what, { planned, actual }] of [
    ['memory', prediction.memoryBytes],
    ['checkpoint', prediction.checkpointBytes],
  ] as const)
    if (planned !== null)
      output.line(
        `${what} planned ${formatBytes(planned)}, ${actual === null ? 'not known yet' : `took ${formatBytes(actual)} (${formatShare(actual / planned)})`}`,
      );
  for (const evaluation of evaluations)
    output.line(
      `  step ${String(evaluation.step).padStart(6)}  held-out ${formatMetric(evaluation.loss)}  ` +
        evaluation.bySource.map((s) => `${s.source} ${formatMetric(s.loss)}`).join('  '),
    );
  if (run.error) output.line(`ended: ${run.error.message}`);
  if (run.crash)
    output.line(`engine: ${run.crash.line ?? run.crash.signal ?? run.crash.exitCode}; ${run.crash.advice}`);
}

/** What a step was trained on, back to the lines of the files. */
async function showStep(client: Client, run: Run, step: number, output: Output): Promise<void> {
  const rows = await client.call('readStepRows', { id: run.id, step });
  output.document({ run: run.id, step, rows });
  output.table(
    ['row', 'loss', 'tokens', 'source', 'file', 'line', 'hash'],
    rows.map(({ row, loss, tokens, source, file, line, hash }) => [
      row,
      loss === null ? null : formatMetric(loss),
      tokens,
      source,
      file,
      line,
      hash,
    ]),
  );
}

function compareRuns(runs: Run[], output: Output): void {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))] as (keyof Run['config'])[];
  const differing = keys.filter(
    (key) => key !== 'name' && new Set(runs.map((run) => JSON.stringify(run.config[key]))).size > 1,
  );
  output.document({ runs, differing });
  const rows: [string, ...(string | null)[]][] = [
    ['state', ...runs.map((run) => run.state)],
    ['steps', ...runs.map((run) => String(run.step))],
    [
      'held-out before',
      ...runs.map((run) => (run.firstEvaluation ? formatMetric(run.firstEvaluation.loss) : null)),
    ],
    [
      'held-out after',
      ...runs.map((run) => (run.lastEvaluation ? formatMetric(run.lastEvaluation.loss) : null)),
    ],
    ...differing.map((key): [string, ...(string | null)[]] => [
      key,
      ...runs.map((run) => (run.config[key] === undefined ? null : String(run.config[key]))),
    ]),
  ];
  output.table(['', ...runs.map((run) => run.name)], rows);
}

/** Every step, paged. */
async function readAllSteps(client: Client, id: string): Promise<Step[]> {
  const all: Step[] = [];
  for (let fromStep = 0; ; fromStep = all.at(-1)!.step + 1) {
    const page = await client.call('readSteps', { id, fromStep, limit: 2000 });
    all.push(...page);
    if (page.length < 2000) return all;
  }
}

function toCsv(steps: Step[]): string {
  const columns = [
    'step',
    'epoch',
    'loss',
    'balanceLoss',
    'balanceGradNorm',
    'lr',
    'gradNorm',
    'tokens',
    'targetTokens',
    'stepMs',
    'tokensPerSecond',
    'memoryBytes',
  ] as const;
  const sources = [...new Set(steps.flatMap((step) => step.lossBySource.map((s) => s.source)))];
  const quote = (cell: string) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const lines = [[...columns, ...sources.map((source) => quote(`loss:${source}`))].join(',')];
  for (const step of steps) {
    const bySource = new Map(step.lossBySource.map((s) => [s.source, s.loss]));
    lines.push(
      [
        ...columns.map((column) => step[column] ?? 'NaN'),
        ...sources.map((source) => (bySource.has(source) ? (bySource.get(source) ?? 'NaN') : '')),
      ].join(','),
    );
  }
  return `${lines.join('\n')}\n`;
}
