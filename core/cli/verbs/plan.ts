import { resolve } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes, formatCount, formatDuration, formatShare } from '../../shared/format.ts';
import { lowerNeed } from '../../shared/run/lowerNeed.ts';
import { choice, flag, number, oneWord } from '../options.ts';
import { readRunFile } from '../runFile.ts';
import type { RunConfig } from '../../shared/run/runConfig.ts';
import type { Varied } from '../../shared/run/run.ts';
import type { Verb, VerbContext } from '../Verb.ts';
import { placeInFile } from '../yamlFile.ts';

const varied = {
  batch: 'microBatchSize',
  length: 'seqLen',
  adapter: 'adapterDim',
  rank: 'loraRank',
} as const satisfies Record<string, Varied>;

export const verb: Verb = {
  summary: 'What a run will need before it starts: parameters, memory, disk, steps, time.',
  usage: 'plan run.yaml [--no-probe] | plan run.yaml --largest batch|length|adapter|rank [--memory-gib N]',
  help: `--no-probe    skip the one timed step that the estimate of the time comes from
--largest     the plan asked backwards: the largest microBatchSize (batch), seqLen (length), adapterDim (adapter) or
              loraRank (rank) that fits, all else as it is
--memory-gib  into so much memory; by default what is available now`,
  options: {
    'no-probe': { type: 'boolean' },
    largest: { type: 'string' },
    'memory-gib': { type: 'string' },
  },
  async run(context) {
    const { options, output, cwd, connect } = context;
    const file = resolve(cwd, oneWord(context, 'run.yaml'));
    const config = await readRunFile(file);
    const client = await connect();
    const largest = choice(options, 'largest', Object.keys(varied) as (keyof typeof varied)[]);
    if (largest !== undefined) return planBackwards(context, file, config, varied[largest]);
    if (options['memory-gib'] !== undefined)
      throw new CaravanError('bad_option', '--memory-gib goes with --largest');
    const plan = await client
      .call('planRun', { config, probe: !flag(options, 'no-probe') })
      .catch(async (error: unknown) => {
        throw await placeInFile(error, file);
      });
    output.document(plan);
    const p = plan.parameters;
    output.line(
      `parameters   ${formatCount(p.total)}, of which ${formatCount(p.trainable)} train (${formatShare(p.trainable / p.total)})`,
    );
    output.line(
      `             base ${formatCount(p.base)}, LoRA ${formatCount(p.lora)}, adapters ${formatCount(p.adapters)}, routers ${formatCount(p.routers)}`,
    );
    output.line(
      `steps        ${formatCount(plan.steps)} over ${formatCount(plan.rows)} rows, ${plan.warmupSteps} of warm-up`,
    );
    output.line(
      `time         ${plan.estimatedMs === null ? 'not probed' : `about ${formatDuration(plan.estimatedMs)}`}` +
        (plan.probe
          ? ` (longest batch: ${formatDuration(plan.probe.stepMs)}, ${formatCount(plan.probe.tokensPerSecond)} tokens/s)`
          : ''),
    );
    output.line(
      `disk         ${formatBytes(plan.checkpointBytes)} a checkpoint` +
        (plan.diskBytes === undefined || plan.freeDiskBytes === undefined
          ? ''
          : `, up to ${formatBytes(plan.diskBytes)} in all; ${formatBytes(plan.freeDiskBytes)} are free`),
    );
    output.line(
      `memory       ${formatBytes(plan.totalMemoryBytes)} of ${formatBytes(plan.availableMemoryBytes)} available`,
    );
    for (const { item, bytes } of plan.memory)
      output.line(`             ${item.padEnd(24)} ${formatBytes(bytes).padStart(11)}`);
    if (plan.hostMemoryBytes !== undefined && plan.hostMemoryBytes > 0)
      output.line(
        `             and ${formatBytes(plan.hostMemoryBytes)} of the machine's memory, beside the GPU`,
      );
    if (plan.track)
      output.line(
        `             so far ${plan.track.runs} ${plan.track.runs === 1 ? 'run' : 'runs'} took ${formatShare(plan.track.least)} to ${formatShare(plan.track.most)} of what was planned`,
      );
    if (!plan.fits)
      throw new CaravanError('does_not_fit', 'the run needs more memory than there is', {
        mend: lowerNeed(config),
      });
    return 0;
  },
};

async function planBackwards(
  { options, output, connect }: VerbContext,
  file: string,
  config: RunConfig,
  vary: Varied,
): Promise<number> {
  const gib = number(options, 'memory-gib');
  const found = await (
    await connect()
  )
    .call('planLargest', { config, vary, ...(gib !== undefined && { memoryBytes: gib * 2 ** 30 }) })
    .catch(async (error: unknown) => {
      throw await placeInFile(error, file);
    });
  output.document({ vary, ...found });
  if (found.largest === null)
    throw new CaravanError('does_not_fit', `no ${vary} fits into ${formatBytes(found.memoryBytes)}`, {
      mend: lowerNeed(config),
    });
  const { value, totalMemoryBytes } = found.largest;
  output.line(
    `${vary}: ${value}  (${formatBytes(totalMemoryBytes)} of ${formatBytes(found.memoryBytes)}` +
      `${value === found.most ? '; more is not possible' : ''}; run.yaml says ${config[vary]})`,
  );
  return 0;
}
