/** What the demo found, as one document and as text. */
import type { CallResult } from '../../shared/contract/contract.ts';
import type { Kind } from '../../demo/generate.ts';
import type { Mix } from '../../shared/dataset/recipe.ts';
import type { Source } from '../../shared/dataset/source.ts';
import { formatCount, formatDuration, formatMetric, formatShare } from '../../shared/format.ts';
import type { Plan, Run } from '../../shared/run/run.ts';
import type { Output } from '../Output.ts';
import { kinds, type AskedQuestion } from './demoSteps.ts';

export interface DemoFindings {
  home: string;
  sources: Source[];
  mix: Mix;
  plan: Plan;
  run: Run;
  before: AskedQuestion[];
  after: AskedQuestion[];
  routing: CallResult<'route'>;
  elapsedMs: number;
}

/** The document of `caravan demo --json`. Everything but speeds, times and places is the same on every run. */
export function demoDocument(found: DemoFindings) {
  const { sources, mix, plan, run } = found;
  return {
    rowsIn: sources.reduce((sum, source) => sum + source.rowsIn, 0),
    rowsMixed: mix.rows,
    rowsHeldOut: mix.validationRows,
    mixHash: mix.contentHash,
    parameters: plan.parameters,
    stepZeroDifference: run.stepZeroDifference,
    quantizationDifference: run.quantizationDifference,
    steps: run.step,
    sources: kinds.map((kind) => ({
      source: kind,
      rows: mix.sources.find((source) => source.name === kind)?.rows ?? 0,
      lossBefore: lossOf(run.firstEvaluation, kind),
      lossAfter: lossOf(run.lastEvaluation, kind),
      exactMatchBefore: shareRight(found.before, kind),
      exactMatchAfter: shareRight(found.after, kind),
      easyExactMatchBefore: shareRight(found.before, kind, true),
      expertShares: expertShares(found.routing, kind),
    })),
    mutualInformation: found.routing.mutualInformation,
    answers: kinds.map((kind) => exampleOf(found, kind)),
    tokensPerSecond: run.tokensPerSecond,
    elapsedMs: found.elapsedMs,
    run: run.id,
    runDir: run.dir,
    home: found.home,
  };
}

export function printDemoReport(output: Output, found: DemoFindings): void {
  const document = demoDocument(found);
  const { run, mix, plan } = found;
  output.line('\nRows');
  output.table(
    ['source', 'rows in', 'trained', 'held out', 'not drawn', 'set aside'],
    mix.sources.map((source) => [
      source.name,
      source.rowsIn,
      source.rows,
      source.validationRows,
      source.rejectedByReason['not_sampled'] ?? 0,
      Object.entries(source.rejectedByReason)
        .filter(([reason]) => reason !== 'not_sampled')
        .map(([reason, count]) => `${count} ${reason}`)
        .join(', ') || 'none',
    ]),
  );
  output.line(`mix ${mix.contentHash}`);

  output.line('\nModel');
  const { parameters } = plan;
  output.line(
    `${formatCount(parameters.base)} base parameters, crafted into ${run.config.numExperts} experts; ` +
      `${formatCount(parameters.trainable)} train (LoRA ${formatCount(parameters.lora)}, adapters ` +
      `${formatCount(parameters.adapters)}, routers ${formatCount(parameters.routers)})`,
  );
  output.line(
    `At step 0 the crafted model differs from its stored base by ${run.stepZeroDifference ?? '?'} in any logit` +
      (run.quantizationDifference === null
        ? ''
        : `; storing the base in 4 bits itself moved a logit by up to ${formatMetric(run.quantizationDifference)}`),
  );

  output.line('\nWhat training changed (held-out rows and questions)');
  output.table(
    ['source', 'loss before', 'loss after', 'exact match before', 'after'],
    document.sources.map((row) => [
      row.source,
      formatMetric(row.lossBefore),
      formatMetric(row.lossAfter),
      formatShare(row.exactMatchBefore),
      formatShare(row.exactMatchAfter),
    ]),
  );

  output.line('\nExperts: share of choices by source, mean over layers');
  output.table(
    ['source', ...Array.from({ length: found.routing.experts }, (_, expert) => `#${expert}`)],
    document.sources.map((row) => [row.source, ...row.expertShares.map(formatShare)]),
  );

  for (const { kind, question, wanted, base, tuned } of document.answers) {
    output.line(`\n${kind}: ${question}`);
    output.line(indent('base ', base));
    output.line(indent('tuned', tuned));
    output.line(indent('right', wanted));
  }

  output.line(
    `\n${run.step} steps at ${formatCount(Math.round(run.tokensPerSecond ?? 0))} tokens/s; the whole demo took ` +
      `${formatDuration(found.elapsedMs)}.`,
  );
  output.line(`The run is ${run.id}, kept in ${run.dir}`);
  output.line('Open the workbench on it:  npm run serve');
  output.line(`Talk to it:                npx caravan chat --model run:${run.id}`);
}

function lossOf(evaluation: Run['firstEvaluation'], kind: Kind): number | null {
  return evaluation?.bySource.find((source) => source.source === kind)?.loss ?? null;
}

/** Right answers over questions of a kind, in [0, 1]. */
function shareRight(asked: readonly AskedQuestion[], kind: Kind, easyOnly = false): number {
  const counted = asked.filter(({ row }) => row.kind === kind && (!easyOnly || row.easy));
  return counted.length === 0 ? 0 : counted.filter(({ right }) => right).length / counted.length;
}

/** Share of each expert among a source's choices (any slot), averaged over layers; sums to 1. */
function expertShares(routing: DemoFindings['routing'], source: string): number[] {
  const counts = routing.sources.find((row) => row.source === source)?.any ?? [];
  const sums = Array.from({ length: routing.experts }, (_, expert) =>
    counts.reduce((sum, share, index) => (index % routing.experts === expert ? sum + share : sum), 0),
  );
  const total = sums.reduce((sum, share) => sum + share, 0) || 1;
  return sums.map((share) => share / total);
}

/** A question that shows the difference where there is one: wrong before and right after, else the first. */
function exampleOf({ before, after }: DemoFindings, kind: Kind) {
  const pairs = after
    .map((tuned, index) => ({ tuned, base: before[index]! }))
    .filter(({ tuned }) => tuned.row.kind === kind);
  const pair = pairs.find(({ tuned, base }) => tuned.right && !base.right) ?? pairs[0]!;
  return {
    kind,
    question: pair.tuned.row.question,
    wanted: pair.tuned.row.brief,
    base: pair.base.answer.text,
    tuned: pair.tuned.answer.text,
  };
}

/** Text under a label, its further lines aligned below the first. */
function indent(label: string, text: string): string {
  return `  ${label}  ${text.trim().replaceAll('\n', `\n  ${' '.repeat(label.length)}  `)}`;
}
