/** Runs and models as ONNX graphs through the command line: made, proved, talked to, and refused where they cannot be. */
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeModel, encodeModel } from '../core/onnx/format/modelProto.ts';
import type { Export } from '../core/shared/model/export.ts';
import type { Model } from '../core/shared/model/model.ts';
import type { Run } from '../core/shared/run/run.ts';
import { writeRandomModel } from './support/randomModel.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

interface Answer {
  text: string;
  ids: number[];
  stop_reason: string;
}
interface Score {
  token_logprobs: number[];
  ids: number[];
}

const rows = [
  { context: 'What is 3 plus 1?', continuation: ' It is 4, because 3 and 1 are 4.' },
  { context: 'def add(a, b):', continuation: '\n    return a + b\n' },
];

describe.runIf(needs('addon', 'ONNX exports through the command line'))('ONNX', () => {
  let caravan: CaravanHome;
  let model: string;
  const place = (name: string) => join(caravan.folder, name);

  async function train(name: string, more: Record<string, unknown>): Promise<void> {
    const settings = {
      ...{ name, model, mix: 'sums', loraRank: 4, numExperts: 4, topK: 2, adapterDim: 8, batchSize: 8 },
      ...{ microBatchSize: 2, seqLen: 64, lr: 0.01, maxSteps: 4, computeDtype: 'f32', threads: 1 },
      ...more,
    };
    caravan.write(
      `${name}.yaml`,
      Object.entries(settings)
        .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
        .join(''),
    );
    await caravan.json<Run>('train', `${name}.yaml`);
  }
  const exported = (what: string, out: string, ...more: string[]) =>
    caravan.json<Export>('export', what, '--format', 'onnx', '--out', out, ...more);
  const chat = (what: string, ...more: string[]) =>
    caravan.json<Answer>('chat', '--model', what, '--prompt', 'What is 5 plus 1?', ...more);
  const score = (what: string) => caravan.lines<Score>('score', '--model', what, '--jsonl', 'rows.jsonl');

  beforeAll(async () => {
    caravan = makeCaravanHome();
    model = writeRandomModel(place('tiny'), { headDim: 16, hidden: 64, intermediate: 96 });
    caravan.write('rows.jsonl', rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    caravan.write(
      'sums.jsonl',
      Array.from(
        { length: 40 },
        (_, i) => `${JSON.stringify({ question: `What is ${i} plus 1?`, answer: `It is ${i + 1}.` })}\n`,
      ).join(''),
    );
    await caravan.json('import', 'sums.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: sums\nseed: 3\nmodel: ${JSON.stringify(model)}\nseqLen: 64\nsources: [{ name: sums, source: sums, count: 32 }]\n`,
    );
    await caravan.json('mix', 'recipe.yaml', '--out', 'mix');
    await train('camel', { method: 'lora', baseDtype: 'nf4' });
    await train('camelidae', { method: 'pesc', baseDtype: 'nf4' });
    await train('whole', { method: 'full', baseDtype: 'f32' });
    await train('upcycled', { method: 'upcycle', baseDtype: 'f32' });
  }, 300_000);
  afterAll(() => caravan.endHost());

  test.each(['camel', 'camelidae', 'whole'])(
    'the run %s answers in ONNX Runtime as it does in the engine, for 200 tokens',
    async (run) => {
      const made = await exported(run, `${run}-f32`, '--type', 'f32');
      expect(made).toMatchObject({ layout: 'onnx', type: 'f32', run: { name: run }, template: 'camelidae' });
      expect(made.parity).toMatchObject({
        passed: true,
        reference: 'trained',
        loss: null,
        tensors: { wrong: [] },
        prompts: { checked: 6, different: 0 },
      });
      expect(made.parity.logits.maxDifference).toBeLessThan(1e-4);
      expect(readdirSync(place(`${run}-f32`)).sort()).toEqual([
        'export.json',
        'genai_config.json',
        'generation_config.json',
        'model.onnx',
        'model.onnx.data',
        'tokenizer.json',
        'tokenizer_config.json',
      ]);
      for (const how of [
        ['--temperature', '0'],
        ['--temperature', '1', '--seed', '5', '--top-k', '50'],
      ]) {
        const [ours, theirs] = [
          await chat(`run:${run}`, '--max-tokens', '200', ...how),
          await chat(place(`${run}-f32`), '--max-tokens', '200', ...how),
        ];
        expect([theirs.ids, theirs.text, theirs.stop_reason]).toEqual([
          ours.ids,
          ours.text,
          ours.stop_reason,
        ]);
      }
      const [ours, theirs] = [await score(`run:${run}`), await score(place(`${run}-f32`))];
      theirs.forEach((row, index) => {
        expect(row.ids).toEqual(ours[index]!.ids);
        row.token_logprobs.forEach((value, at) =>
          expect(value).toBeCloseTo(ours[index]!.token_logprobs[at]!, 2),
        );
      });
    },
    120_000,
  );

  test.each(['f16', 'int4'])('%s is proved against what its file must hold', async (type) => {
    const made = await exported('camelidae', `crafted-${type}`, '--type', type);
    expect(made.parity).toMatchObject({ passed: true, tensors: { wrong: [] } });
    expect(made.parity.reference).toBe(type === 'int4' ? 'dequantised' : 'trained');
    expect(made.parity.loss === null).toBe(type === 'f16');
    expect((await chat(place(`crafted-${type}`), '--max-tokens', '8')).ids.length).toBeGreaterThan(0);
  });

  test('a model as it came is exported, added to the library and talked to by its name', async () => {
    const made = await exported(model, 'plain');
    expect(made).toMatchObject({ run: null, type: 'f16', parity: { passed: true } });
    const added = await caravan.json<Model>('model', 'add', place('plain'), '--name', 'plain-onnx', '--copy');
    expect(added).toMatchObject({
      storedDtypes: ['ONNX f16'],
      hiddenSize: 64,
      numLayers: 2,
      maxPositions: 256,
    });
    expect(added.dir).not.toBe(place('plain'));
    const original = await caravan.json<Model>('model', 'inspect', model);
    expect(added.parameters).toEqual(original.parameters);
    expect((await chat('plain-onnx', '--max-tokens', '4')).ids.length).toBeGreaterThan(0);
    const listed = await caravan.run('export', 'list');
    expect(listed.stdout).toContain('as it came');
    const shown = await caravan.run('export', 'show', 'plain');
    expect(shown.stdout).toContain('against the model as it came');
    expect(shown.stdout).toContain('✓ equal');
  });

  test('a published sparse model is one too', async () => {
    await caravan.json('export', 'camelidae', '--format', 'camelidae', '--out', 'published', '--type', 'f32');
    const made = await exported(place('published'), 'published-onnx', '--type', 'f32');
    expect(made.parity).toMatchObject({ passed: true, tensors: { merged: 0, wrong: [] } });
    const inspected = await caravan.json<Model>('model', 'inspect', place('published-onnx'));
    expect(inspected.experts).toMatchObject({ count: 4, topK: 2, adapterDim: 8 });
    expect(inspected.parameters).toEqual(
      (await caravan.json<Model>('model', 'inspect', place('published'))).parameters,
    );
  });

  test('what the graph cannot say is refused, and another format offered', async () => {
    const refused = async (what: string, words: string[], ...more: string[]) => {
      const result = await caravan.run('export', what, '--format', 'onnx', '--out', 'refused', ...more);
      expect(result.code).toBe(2);
      for (const word of words) expect(result.stderr).toContain(word);
      expect(existsSync(place('refused'))).toBe(false);
    };
    await refused('upcycled', ['whole FFNs', 'mixtral']);
    await refused('camel', ['f32, f16 or int4'], '--type', 'q8_0');
    const odd = writeRandomModel(place('odd'), { headDim: 8 });
    await refused(odd, ['multiple of 16', 'merged']);
    await refused(place('plain'), ['ONNX export already']);
    caravan.write('onnx.yaml', `model: ${JSON.stringify(place('plain'))}\nmix: sums\nmethod: lora\n`);
    const trained = await caravan.run('train', 'onnx.yaml');
    expect(trained.code).toBe(2);
    expect(trained.stderr).toContain('does not train');
  });

  test('a damaged or foreign graph is refused by name', async () => {
    const broken = place('broken');
    const again = async () => {
      rmSync(broken, { recursive: true, force: true });
      await exported('camel', 'broken', '--type', 'int4');
    };
    const refused = async (words: string) => {
      const result = await caravan.run('chat', '--model', broken, '--prompt', 'Hello');
      expect(result.code).toBe(2);
      expect(result.stderr).toContain(words);
    };
    await again();
    const graph = join(broken, 'model.onnx');
    const decoded = decodeModel(readFileSync(graph));
    for (const { externalData } of decoded.graph.initializer)
      for (const entry of externalData ?? []) if (entry.key === 'location') entry.value = '../../etc/passwd';
    writeFileSync(graph, encodeModel(decoded));
    await refused('must lie in model.onnx.data');
    truncateSync(graph, 4000);
    await refused('is no ONNX model');
    await again();
    truncateSync(join(broken, 'model.onnx.data'), 4000);
    await refused('cut short');
    rmSync(join(broken, 'model.onnx.data'));
    symlinkSync(join(place('camel-f32'), 'model.onnx.data'), join(broken, 'model.onnx.data'));
    await refused('no plain file');
  });

  test('doctor says what ONNX Runtime can compute on, and why not on the rest', async () => {
    const { checks } = await caravan.json<{ checks: { name: string; found: string; status: string }[] }>(
      'doctor',
    );
    const check = checks.find(({ name }) => name === 'ONNX Runtime');
    expect(check?.status).toBe('ok');
    expect(check?.found).toMatch(/^CPU/);
    if (process.platform === 'linux') expect(check?.found).toContain('CoreML (is for macOS)');
  });
});
