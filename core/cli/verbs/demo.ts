import { join } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatDuration } from '../../shared/format.ts';
import { demoDocument, printDemoReport } from '../demo/demoReport.ts';
import {
  addBaseModel,
  ask,
  buildDemoMix,
  demoFolder,
  importSources,
  kinds,
  questionsOf,
  routeQuestions,
  type DemoContext,
} from '../demo/demoSteps.ts';
import { followRun } from '../followRun.ts';
import { number } from '../options.ts';
import { readRunFile } from '../runFile.ts';
import type { Verb } from '../Verb.ts';

const defaultQuestions = 100;

export const verb: Verb = {
  summary:
    'The main job on the embedded model: mix three sources, craft 8 experts, train, ask before and after.',
  usage: 'demo [--steps N] [--questions N]',
  help: `--steps N      train N steps instead of what demo/run.yaml says
--questions N  held-out questions of each kind, before and after (default ${defaultQuestions})

Settings are in demo/recipe.yaml and demo/run.yaml. Run it twice: the mix has the same bytes, the losses the same digits.`,
  options: { steps: { type: 'string' }, questions: { type: 'string' } },
  async run({ options, output, connect, interrupted }) {
    const started = performance.now();
    const steps = number(options, 'steps');
    const perKind = number(options, 'questions') ?? defaultQuestions;
    if (!Number.isInteger(perKind) || perKind < 1 || perKind > 200)
      throw new CaravanError('bad_option', `--questions needs a whole number from 1 to 200, not ${perKind}`);
    const client = await connect();
    const { home } = await client.call('hello', {});
    const context: DemoContext = { client, output, interrupted, dir: join(home, 'demo') };
    const stage = (text: string) => output.remark(`[${formatDuration(performance.now() - started)}] ${text}`);

    stage('making and importing three sources');
    const sources = await importSources(context);
    const model = await addBaseModel(context);
    stage(`mixing them 3:1:1 for ${model.name}`);
    const mix = await buildDemoMix(context, model);
    const settings = await readRunFile(join(demoFolder, 'run.yaml'));
    const config = {
      ...settings,
      model: model.name,
      mix: mix.dir,
      ...(steps !== undefined && { maxSteps: steps }),
    };
    const plan = await client.call('planRun', { config });
    const questions = kinds.flatMap((kind) => questionsOf(kind, perKind));
    stage(`asking the base model ${questions.length} held-out questions`);
    const before = await ask(context, 'base model', model.name, questions, config.baseDtype);
    stage(`crafting ${config.numExperts} experts and training ${plan.steps} steps`);
    const run = await followRun(client, await client.call('startRun', { config }), output, interrupted);
    if (run.state !== 'completed') {
      const { code, message, mend } = run.error ?? {
        code: 'interrupted' as const,
        message: `the run is ${run.state} at step ${run.step}`,
      };
      throw new CaravanError(code, message, { mend: mend ?? `caravan train --resume ${run.id}` });
    }
    stage('asking the tuned model the same');
    const after = await ask(context, 'tuned model', `run:${run.id}`, questions, config.baseDtype);
    const routing = await routeQuestions(context, `run:${run.id}`, questions);

    const found = { home, sources, mix, plan, run, before, after, routing };
    const findings = { ...found, elapsedMs: performance.now() - started };
    output.document(demoDocument(findings));
    printDemoReport(output, findings);
    return 0;
  },
};
