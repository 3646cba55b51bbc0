import { resolve } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes, formatCount, formatDuration, formatShare } from '../../shared/format.ts';
import { lowerNeed } from '../../shared/run/lowerNeed.ts';
import { flag, oneWord } from '../options.ts';
import { readRunFile } from '../runFile.ts';
import type { Verb } from '../Verb.ts';
import { placeInFile } from '../yamlFile.ts';

export const verb: Verb = {
  summary: 'What a run will need before it starts: parameters, memory, disk, steps, time.',
  usage: 'plan run.yaml [--no-probe]',
  help: '--no-probe  skip the one timed step that the estimate of the time comes from',
  options: { 'no-probe': { type: 'boolean' } },
  async run(context) {
    const { options, output, cwd, connect } = context;
    const file = resolve(cwd, oneWord(context, 'run.yaml'));
    const config = await readRunFile(file);
    const client = await connect();
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
    output.line(`checkpoint   ${formatBytes(plan.checkpointBytes)} each`);
    output.line(
      `memory       ${formatBytes(plan.totalMemoryBytes)} of ${formatBytes(plan.availableMemoryBytes)} available`,
    );
    for (const { item, bytes } of plan.memory)
      output.line(`             ${item.padEnd(24)} ${formatBytes(bytes).padStart(11)}`);
    if (!plan.fits)
      throw new CaravanError('does_not_fit', 'the run needs more memory than there is', {
        mend: lowerNeed(config),
      });
    return 0;
  },
};
