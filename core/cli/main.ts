import { parseArgs } from 'node:util';
import { connectOrStart } from '../host/connect.ts';
import type { Client } from '../shared/contract/client.ts';
import { CaravanError, exitCode } from '../shared/contract/errors.ts';
import { version } from '../host/version.ts';
import { Output } from './Output.ts';
import type { Verb, VerbContext } from './Verb.ts';

/** Verbs load on demand, so that `caravan chat` does not pay for what `caravan mix` needs. */
export const verbs: Record<string, () => Promise<{ verb: Verb }>> = {
  doctor: () => import('./verbs/doctor.ts'),
  demo: () => import('./verbs/demo.ts'),
  import: () => import('./verbs/import.ts'),
  hub: () => import('./verbs/hub.ts'),
  recipe: () => import('./verbs/recipe.ts'),
  mix: () => import('./verbs/mix.ts'),
  mixes: () => import('./verbs/mixes.ts'),
  model: () => import('./verbs/model.ts'),
  tokenize: () => import('./verbs/tokenize.ts'),
  plan: () => import('./verbs/plan.ts'),
  train: () => import('./verbs/train.ts'),
  runs: () => import('./verbs/runs.ts'),
  jobs: () => import('./verbs/jobs.ts'),
  cache: () => import('./verbs/cache.ts'),
  chat: () => import('./verbs/chat.ts'),
  score: () => import('./verbs/score.ts'),
  route: () => import('./verbs/route.ts'),
  export: () => import('./verbs/export.ts'),
  serve: () => import('./verbs/serve.ts'),
};

/** @returns the exit code: 0 done, 1 a bug, 2 bad input, 3 the machine lacks something, 4 interrupted, state kept. */
export async function main(argv: string[]): Promise<number> {
  const [name, ...rest] = argv;
  const json = rest.includes('--json');
  const output = new Output(json, process.stdout, process.stderr);
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    await printOverview(output);
    return name === undefined ? 2 : 0;
  }
  if (name === 'version' || name === '--version' || name === '-v') {
    output.document({ version });
    output.line(version);
    return 0;
  }
  const load = Object.hasOwn(verbs, name) ? verbs[name] : undefined;
  if (!load) {
    output.error(
      new CaravanError('bad_option', `there is no verb '${name}'`, { mend: 'caravan help lists the verbs.' }),
    );
    return 2;
  }
  const { verb } = await load();
  let client: Promise<Client> | undefined;
  const interruption = new AbortController();
  const onInterrupt = () => {
    if (interruption.signal.aborted) process.exit(4);
    interruption.abort();
  };
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  try {
    const { options, words } = parse(verb, rest);
    if (options['help']) {
      output.line(`caravan ${verb.usage}\n\n${verb.summary}\n\n${verb.help.trimEnd()}`);
      return 0;
    }
    const context: VerbContext = {
      words,
      options,
      output,
      cwd: process.cwd(),
      connect: () => (client ??= connectOrStart({ onRemark: (text) => output.remark(text) })),
      interrupted: interruption.signal,
    };
    return await verb.run(context);
  } catch (error) {
    // What is wrong with the command's own words shows before any host is asked.
    const known = client ? CaravanError.from(error) : withMend(CaravanError.from(error), name);
    output.error(known);
    if (known.code === 'internal' && error instanceof Error) output.remark(error.stack ?? '');
    return exitCode(known.code);
  } finally {
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onInterrupt);
    (await client?.catch(() => undefined))?.close();
  }
}

function parse(verb: Verb, args: string[]) {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: { ...verb.options, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
      strict: true,
    });
    return { options: values as VerbContext['options'], words: positionals };
  } catch (error) {
    throw new CaravanError('bad_option', (error as Error).message.replace(/\. To specify .*$/s, ''));
  }
}

/** What is wrong with the words of the command itself is mended by its help. */
function withMend(error: CaravanError, verb: string): CaravanError {
  if (error.code !== 'bad_option' || error.mend !== undefined) return error;
  return new CaravanError(error.code, error.message, {
    ...(error.place && { place: error.place }),
    mend: `caravan ${verb} --help says how.`,
  });
}

async function printOverview(output: Output): Promise<void> {
  output.line('caravan VERB [options]: fine-tune language models on your own machine.\n');
  for (const [name, load] of Object.entries(verbs)) {
    const { verb } = await load();
    output.line(`  ${name.padEnd(10)}${verb.summary}`);
  }
  output.line(
    '\nEvery verb takes --json and --help. CARAVAN_HOME says where runs, mixes and models are kept.',
  );
}
