/**
 * The demo's steps, each a thin layer over the contract: what they do, a person can do by hand with the other verbs.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkAnswer, generateRows, type Kind, type Row } from '../../demo/generate.ts';
import { writeSources } from '../../demo/writeSources.ts';
import type { Client } from '../../shared/contract/client.ts';
import type { Answer } from '../../shared/chat/chat.ts';
import { recipeSchema, type Mix } from '../../shared/dataset/recipe.ts';
import type { Message, Source } from '../../shared/dataset/source.ts';
import type { Model } from '../../shared/model/model.ts';
import { followJob } from '../followJob.ts';
import type { Output } from '../Output.ts';
import { readYamlFile } from '../yamlFile.ts';

export const kinds = ['general', 'code', 'math'] as const satisfies readonly Kind[];

/** Raw rows made of each kind; the mix draws 3:1:1 from them. */
const madeRows: Readonly<Record<Kind, number>> = { general: 1980, code: 720, math: 720 };
/** Seeds of the training rows and of the questions asked before and after. */
const seeds = { train: 1, questions: 2 };
const longestAnswer = 96;

export const demoFolder = fileURLToPath(new URL('../../../demo', import.meta.url));

/** What every step works with. */
export interface DemoContext {
  client: Client;
  output: Output;
  interrupted: AbortSignal;
  /** Below the home. */
  dir: string;
}

/** Writes the three raw files and imports them; sources of an earlier demo are replaced. */
export async function importSources(context: DemoContext): Promise<Source[]> {
  const { client, output, interrupted, dir } = context;
  const written = writeSources(join(dir, 'sources'), { seed: seeds.train, rows: madeRows });
  const known = await client.call('listSources', {});
  const sources: Source[] = [];
  for (const kind of kinds) {
    const name = `demo-${kind}`;
    const earlier = known.find((source) => source.name === name);
    if (earlier) await client.call('removeSource', { id: earlier.id });
    const job = await client.call('importSource', { files: [written[kind].file], name });
    const done = await followJob(client, job, output, interrupted);
    sources.push(await client.call('getSource', { id: done.subjectId ?? '' }));
  }
  return sources;
}

/** The embedded base model in the library, under the name `demo-base`. */
export async function addBaseModel(context: DemoContext): Promise<Model> {
  const { client, output, interrupted } = context;
  const path = join(demoFolder, 'base');
  const known = (await client.call('listModels', {})).find((model) => model.dir === path);
  if (known) return known;
  const job = await client.call('addModel', { path, name: 'demo-base' });
  const done = await followJob(client, job, output, interrupted);
  return client.call('getModel', { id: done.subjectId ?? '' });
}

/** Builds demo/recipe.yaml below the home. A mix of an earlier demo is built again in its place: the bytes are the same. */
export async function buildDemoMix(context: DemoContext, model: Model): Promise<Mix> {
  const { client, output, interrupted, dir } = context;
  const recipe = await readYamlFile(join(demoFolder, 'recipe.yaml'), recipeSchema, 'bad_recipe');
  const job = await client.call('buildMix', {
    recipe: { ...recipe, model: model.name },
    baseDir: demoFolder,
    outDir: join(dir, 'mix'),
  });
  const done = await followJob(client, job, output, interrupted);
  return client.call('getMix', { id: done.subjectId ?? '' });
}

/** Held-out questions of one kind: no training row, whatever the seed, asks the same. */
export function questionsOf(kind: Kind, count: number): Row[] {
  return generateRows(kind, 'heldout', seeds.questions, count);
}

/** One held-out question with what a model said to it. */
export interface AskedQuestion {
  row: Row;
  answer: Answer;
  right: boolean;
}

/** Asks a model all questions, greedily, one after the other. */
export async function ask(
  context: DemoContext,
  label: string,
  model: string,
  questions: readonly Row[],
  baseDtype: 'f32' | 'bf16' | 'nf4',
): Promise<AskedQuestion[]> {
  const { client, output, interrupted } = context;
  const asked: AskedQuestion[] = [];
  for (const row of questions) {
    interrupted.throwIfAborted();
    output.progress(label, {
      done: asked.length,
      total: questions.length,
      unit: 'questions',
      rate: null,
      etaMs: null,
    });
    const messages: Message[] = [
      ...(row.system === undefined ? [] : [{ role: 'system' as const, content: row.system }]),
      { role: 'user', content: row.question },
    ];
    const answer = await client.call('generateAnswer', {
      answerId: randomUUID(),
      model,
      messages,
      template: 'camelidae',
      sampling: { temperature: 0, maxTokens: longestAnswer },
      baseDtype,
    });
    asked.push({ row, answer, right: checkAnswer(row, answer.text) });
  }
  output.endProgress();
  return asked;
}

/** Which experts the tuned model's tokens choose, for the rows asked. */
export function routeQuestions(context: DemoContext, model: string, questions: readonly Row[]) {
  return context.client.call('route', {
    model,
    rows: questions.map((row) => ({
      text: `### Human:\n${row.question}\n### Assistant:\n${row.answer}`,
      source: row.kind,
    })),
  });
}
