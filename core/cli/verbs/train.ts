import { resolve } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatDuration, formatMetric } from '../../shared/format.ts';
import { followRun } from '../followRun.ts';
import { flag, oneWord, text } from '../options.ts';
import { readRunFile } from '../runFile.ts';
import type { Verb } from '../Verb.ts';
import { placeInFile } from '../yamlFile.ts';

export const verb: Verb = {
  summary: 'Train by run.yaml, or resume a run exactly where its last checkpoint stands.',
  usage: 'train run.yaml [--detach | --hold] | train --resume RUN [--detach]',
  help: `--resume RUN  a run's id, the start of one, or its name
--hold        put it into the queue: it begins when that is started (caravan jobs start), or at its time
--detach      start it and return; \`caravan runs show\` tells how it goes

Ctrl-C stops with a checkpoint (exit code 4). Closing the terminal leaves the run going.`,
  options: { resume: { type: 'string' }, detach: { type: 'boolean' }, hold: { type: 'boolean' } },
  async run(context) {
    const { words, options, output, cwd, connect, interrupted } = context;
    const reference = text(options, 'resume');
    if (reference !== undefined && words.length > 0)
      throw new CaravanError(
        'bad_option',
        'give run.yaml or --resume RUN, not both: a run resumes with its own settings',
      );
    const file = reference === undefined ? resolve(cwd, oneWord(context, 'run.yaml')) : null;
    const config = file === null ? null : await readRunFile(file);
    const client = await connect();
    const run = config
      ? await client
          .call('startRun', { config, hold: flag(options, 'hold') })
          .catch(async (error: unknown) => {
            throw await placeInFile(error, file!);
          })
      : await client.call('resumeRun', { id: (await client.call('findRun', { ref: reference! })).id });
    output.remark(`run ${run.id} (${run.name}) in ${run.dir}`);
    if (flag(options, 'detach') || (config && flag(options, 'hold'))) {
      output.document(run);
      return 0;
    }
    const end = await followRun(client, run, output, interrupted);
    output.document(end);
    if (end.firstEvaluation && end.lastEvaluation) {
      const before = new Map(end.firstEvaluation.bySource.map((s) => [s.source, s.loss]));
      output.table(
        ['source', 'held-out loss before', 'after'],
        end.lastEvaluation.bySource.map((s) => [
          s.source,
          formatMetric(before.get(s.source) ?? null),
          formatMetric(s.loss),
        ]),
      );
    }
    output.line(
      `${end.name}: ${end.state} at step ${end.step} of ${end.totalSteps ?? '?'} after ${formatDuration(end.elapsedMs)}`,
    );
    if (end.lastCheckpoint) output.line(`checkpoint ${end.lastCheckpoint}`);
    if (end.state === 'completed') return 0;
    if (end.state === 'stopped') {
      output.remark(`go on with: caravan train --resume ${end.id}`);
      return 4;
    }
    const { code, message, place, mend } = end.error ?? {
      code: 'engine_died' as const,
      message: end.crash?.advice ?? 'the engine ended',
    };
    throw new CaravanError(code, message, {
      ...(place && { place }),
      mend: [mend, end.lastCheckpoint && `Resume with: caravan train --resume ${end.id}`]
        .filter(Boolean)
        .join(' '),
    });
  },
};
