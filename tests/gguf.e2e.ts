/** A real model's GGUF file through the command line, by its path alone. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Model } from '../core/shared/model/model.ts';
import type { Run } from '../core/shared/run/run.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs, testData } from './support/skip.ts';

interface RecordedScore {
  context: string;
  continuation: string;
  continuation_ids: number[];
  token_logprobs: number[];
  greedy: boolean;
}
interface Score {
  token_logprobs: number[];
  ids: number[];
  greedy: boolean;
}

const jsonLines = <T>(text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T);
const writeLines = (values: unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('');

const addon = needs('addon', 'a GGUF file through the command line');
const data = needs('data', 'a GGUF file through the command line');

describe.runIf(addon && data)('a GGUF file', () => {
  const file = () => testData('models/SmolLM2-135M-Instruct.Q4_1.gguf');
  let caravan: CaravanHome;
  beforeAll(() => {
    caravan = makeCaravanHome();
  });
  afterAll(() => caravan.endHost());

  test('model inspect', async () => {
    expect(await caravan.json<Model>('model', 'inspect', file())).toMatchObject({
      name: 'SmolLM2-135M-Instruct.Q4_1',
      family: 'llama',
      numLayers: 30,
      hiddenSize: 576,
      numKvHeads: 3,
      vocabSize: 49152,
      tiedEmbeddings: true,
      storedDtypes: ['F32', 'Q4_1', 'Q8_0'],
      parameters: { total: 134_515_008 },
      hasChatTemplate: true,
      bosToken: '<|im_start|>',
      eosToken: '<|im_end|>',
    });
  });

  test("tokenize gives Hugging Face's ids", async () => {
    const lines = jsonLines<{ text: string; ids: { smollm2: number[] } }>(
      gunzipSync(readFileSync(testData('data/tokenizer-lines.jsonl.gz'))).toString(),
    ).slice(0, 400);
    caravan.write('texts.jsonl', writeLines(lines.map(({ text }) => ({ text }))));
    const found = await caravan.lines<{ ids: number[] }>(
      'tokenize',
      '--model',
      file(),
      '--jsonl',
      'texts.jsonl',
    );
    expect(found.map(({ ids }) => ids)).toEqual(lines.map(({ ids }) => ids.smollm2));
  });

  test("score agrees with transformers' log-probabilities to 1e-4 a token", async () => {
    const recorded = jsonLines<RecordedScore>(
      readFileSync(testData('models/smollm2-scores.jsonl'), 'utf8'),
    ).filter((_, index) => index % 20 === 0);
    caravan.write(
      'score.jsonl',
      writeLines(recorded.map(({ context, continuation }) => ({ context, continuation }))),
    );
    const scores = await caravan.lines<Score>('score', '--model', file(), '--jsonl', 'score.jsonl');
    expect(scores.map(({ ids }) => ids)).toEqual(recorded.map((line) => line.continuation_ids));
    expect(scores.map(({ greedy }) => greedy)).toEqual(recorded.map((line) => line.greedy));
    const differences = scores.flatMap(({ token_logprobs }, row) =>
      token_logprobs.map((logprob, index) => Math.abs(logprob - recorded[row]!.token_logprobs[index]!)),
    );
    expect(differences.length).toBe(recorded.flatMap((line) => line.token_logprobs).length);
    expect(Math.max(...differences)).toBeLessThan(1e-4);
  });

  test("chat at temperature 0 gives transformers' answer", async () => {
    const [recorded] = jsonLines<{ prompt: string; ids: number[]; text: string }>(
      readFileSync(testData('models/smollm2-greedy.jsonl'), 'utf8'),
    );
    const { prompt, ids, text } = recorded!;
    const answer = await caravan.json<{ text: string; ids: number[] }>(
      ...['chat', '--model', file(), '--prompt', prompt, '--temperature', '0', '--max-tokens', '96'],
    );
    expect(answer).toMatchObject({ ids, text });
  });

  test('train on it, and chat with the run', async () => {
    caravan.write(
      'sums.jsonl',
      writeLines(
        Array.from({ length: 12 }, (_, i) => ({ question: `What is ${i} plus 1?`, answer: `${i + 1}` })),
      ),
    );
    await caravan.json('import', 'sums.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: sums\nseed: 3\nmodel: ${JSON.stringify(file())}\nseqLen: 64\nsources: [{ name: sums, source: sums, count: 8 }]\n`,
    );
    await caravan.json('mix', 'recipe.yaml', '--out', 'mix');
    caravan.write(
      'run.yaml',
      [
        'name: from-gguf',
        `model: ${JSON.stringify(file())}`,
        'mix: sums',
        'method: lora',
        'baseDtype: bf16',
        'loraRank: 4',
        'batchSize: 4',
        'microBatchSize: 1',
        'seqLen: 64',
        'maxSteps: 1',
      ].join('\n'),
    );
    const run = await caravan.json<Run>('train', 'run.yaml');
    expect(run.state).toBe('completed');
    const answer = await caravan.json<{ ids: number[] }>(
      ...['chat', '--model', 'run:from-gguf', '--prompt', 'What is 2 plus 1?', '--temperature', '0'],
      ...['--max-tokens', '4'],
    );
    expect(answer.ids.length).toBeGreaterThan(0);
  });

  test('a damaged one is bad input, and the file is named', async () => {
    const cut = caravan.write('cut.gguf', readFileSync(file()).subarray(0, 4_000_000));
    for (const verb of [
      ['model', 'inspect', cut],
      ['score', '--model', cut, '--jsonl', 'score.jsonl'],
    ]) {
      const result = await caravan.run(...verb);
      expect(result.code).toBe(2);
      expect(result.stderr).toContain(join(caravan.folder, 'cut.gguf'));
    }
  });
});
