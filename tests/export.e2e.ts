/** Runs of every method, carried out in every layout through the command line, and held to what was trained. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CallResult } from '../core/shared/contract/contract.ts';
import type { Export } from '../core/shared/model/export.ts';
import type { Model } from '../core/shared/model/model.ts';
import type { Run } from '../core/shared/run/run.ts';
import { writeRandomModel } from './support/randomModel.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

interface Score {
  token_logprobs: number[];
  ids: number[];
}

const jsonLines = <T>(text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T);

const rows = [
  { context: 'What is 3 plus 1?', continuation: ' It is 4, because 3 and 1 are 4.' },
  { context: '### Human:\nName a river.\n### Assistant:\n', continuation: 'The Rhine flows through Basel.' },
  { context: 'def add(a, b):', continuation: '\n    return a + b\n' },
];

describe.runIf(needs('addon', 'exports through the command line'))('exports', () => {
  let caravan: CaravanHome;
  let model: string;

  async function train(name: string, more: Record<string, unknown>): Promise<Run> {
    const settings = {
      name,
      model,
      mix: 'sums',
      loraRank: 4,
      numExperts: 4,
      topK: 2,
      adapterDim: 8,
      batchSize: 8,
      microBatchSize: 2,
      seqLen: 64,
      lr: 0.01,
      maxSteps: 4,
      computeDtype: 'f32',
      threads: 1,
      ...more,
    };
    caravan.write(
      `${name}.yaml`,
      Object.entries(settings)
        .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
        .join(''),
    );
    return caravan.json<Run>('train', `${name}.yaml`);
  }
  const exported = (run: string, format: string, out: string, ...more: string[]) =>
    caravan.json<Export>('export', run, '--format', format, '--out', out, ...more);
  const score = (reference: string) =>
    caravan.lines<Score>('score', '--model', reference, '--jsonl', 'rows.jsonl');
  const place = (name: string) => join(caravan.folder, name);

  function largestDifference(a: Score[], b: Score[]): number {
    expect(a.map(({ ids }) => ids)).toEqual(b.map(({ ids }) => ids));
    return Math.max(
      ...a.flatMap(({ token_logprobs }, row) =>
        token_logprobs.map((value, index) => Math.abs(value - b[row]!.token_logprobs[index]!)),
      ),
    );
  }

  beforeAll(async () => {
    caravan = makeCaravanHome();
    model = writeRandomModel(place('tiny'));
    caravan.write(
      'texts.jsonl',
      rows.map(({ context }) => `${JSON.stringify({ text: context })}\n`).join(''),
    );
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

  test('PEFT: the adapter over its base is the run, to the bit', async () => {
    const made = await exported('camel', 'peft', 'peft');
    expect(made.parity).toMatchObject({ passed: true, reference: 'trained', loss: null });
    expect(made.parity.logits.maxDifference).toBe(0);
    expect(made.parity.tensors).toMatchObject({ tensors: 28, copied: 28, merged: 0, wrong: [] });
    const { each, elements } = made.parity.tensors;
    expect(each).toHaveLength(28);
    expect(each![0]).toMatchObject({ rule: 'copied', difference: 0, wrong: 0 });
    expect(each!.reduce((sum, tensor) => sum + tensor.elements, 0)).toBe(elements);
    expect(readdirSync(place('peft')).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'export.json',
      'generation_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(JSON.parse(readFileSync(join(place('peft'), 'adapter_config.json'), 'utf8'))).toMatchObject({
      peft_type: 'LORA',
      r: 4,
      base_model_name_or_path: model,
    });
    expect((await score(place('peft'))).length).toBe(rows.length);
  });

  test('every format is offered with its size, or refused with the reason and another', async () => {
    const { formats } = await caravan.json<CallResult<'offerExports'>>('export', 'formats', 'camelidae');
    const of = (layout: string) => formats.find((one) => one.layout === layout)!;
    expect(of('camelidae')).toMatchObject({ type: 'bf16', refusal: null });
    expect(of('camelidae').bytes).toBeGreaterThan(100_000);
    expect(of('gguf')).toMatchObject({ bytes: null, refusal: { code: 'bad_option' } });
    expect(of('gguf').refusal!.message).toContain('experts');
    expect(of('gguf').refusal!.mend).toMatch(/^Use /);
  });

  test('an adapter of a crafted run carries its experts and routers', async () => {
    const made = await exported('camelidae', 'adapter', 'adapter');
    expect(made.parity).toMatchObject({ passed: true, tensors: { wrong: [] } });
    expect(made.parity.logits.maxDifference).toBe(0);
    expect(made.files.map(({ name }) => name)).toContain('caravan_adapter.safetensors');
    const bytes = made.files.find(({ name }) => name === 'caravan_adapter.safetensors')!.bytes;
    expect(bytes).toBeLessThan(200_000);
  });

  test('merged into the base that it was trained on, a run is equal; into the base as stored, the loss is shown', async () => {
    const trained = await exported('camel', 'merged', 'merged', '--type', 'f32');
    expect(trained.parity).toMatchObject({ passed: true, reference: 'trained', loss: null });
    expect(trained.parity.logits.maxDifference).toBeLessThan(1e-4);
    expect(trained.parity.tensors).toMatchObject({ merged: 14, wrong: [] });
    expect(largestDifference(await score(place('merged')), await score('run:camel'))).toBeLessThan(1e-2);

    const original = await exported(
      'camel',
      'merged',
      'original',
      '--type',
      'f32',
      '--merge-into',
      'original',
    );
    expect(original.parity).toMatchObject({ passed: true, reference: 'original_base' });
    expect(original.parity.logits.maxDifference).toBeLessThan(1e-4);
    expect(original.parity.loss!.maxDifference).toBeGreaterThan(10 * trained.parity.logits.maxDifference!);
    expect(original.notes.join()).toContain('NF4');
  });

  test('bf16 folders pass by KL, in shards with an index', async () => {
    const made = await exported('whole', 'merged', 'shards', '--shard-gib', '0.0001');
    expect(made.parity.passed).toBe(true);
    expect(made.parity.logits.kl).toBeLessThan(1e-4);
    const index = JSON.parse(readFileSync(join(place('shards'), 'model.safetensors.index.json'), 'utf8')) as {
      weight_map: Record<string, string>;
    };
    expect(new Set(Object.values(index.weight_map)).size).toBeGreaterThan(1);
    expect((await caravan.json<Model>('model', 'inspect', place('shards'))).storedDtypes).toEqual(['BF16']);
  });

  test('the published sparse layouts keep experts, routers, top-k and scale', async () => {
    for (const layout of ['camelidae', 'sparsetral']) {
      const made = await exported('camelidae', layout, layout, '--type', 'f32');
      expect(made.parity).toMatchObject({ passed: true, tensors: { wrong: [] } });
      expect(made.parity.logits.maxDifference).toBeLessThan(1e-4);
      const config = JSON.parse(readFileSync(join(place(layout), 'config.json'), 'utf8')) as object;
      expect(config).toMatchObject({
        model_type: layout,
        num_experts: 4,
        topk: 2,
        adapter_dim: 8,
        moe_scaling: 1,
        auto_map: { AutoConfig: expect.stringContaining(`configuration_${layout}.`) as string },
      });
      expect(readFileSync(join(place(layout), 'README.md'), 'utf8')).toContain('trust_remote_code');
      expect(largestDifference(await score(place(layout)), await score('run:camelidae'))).toBeLessThan(1e-2);
      const shares = await caravan.json<{ experts: number }>(
        ...['route', '--model', place(layout), '--jsonl', 'texts.jsonl'],
      );
      expect(shares.experts).toBe(4);
    }
  });

  test('an upcycled run is a Mixtral', async () => {
    const made = await exported('upcycled', 'mixtral', 'mixtral', '--type', 'f32');
    expect(made.parity).toMatchObject({ passed: true, tensors: { wrong: [] } });
    expect(made.parity.logits.maxDifference).toBeLessThan(1e-4);
    expect(largestDifference(await score(place('mixtral')), await score('run:upcycled'))).toBeLessThan(1e-3);
  });

  test.each(['f32', 'f16', 'q8_0', 'q4_0'])('GGUF %s, with tokenizer and template', async (type) => {
    const made = await exported('whole', 'gguf', `gguf-${type}`, '--type', type);
    expect(made.parity).toMatchObject({
      passed: true,
      tensors: { wrong: [] },
      prompts: { checked: 6, different: 0 },
    });
    const quantised = type.startsWith('q');
    expect(made.parity.reference).toBe(quantised ? 'dequantised' : 'trained');
    if (quantised) expect(made.parity.loss!.maxDifference).toBeGreaterThan(made.parity.logits.maxDifference!);
    const file = join(place(`gguf-${type}`), `whole.${type.toUpperCase()}.gguf`);
    const inspected = await caravan.json<Model>('model', 'inspect', file);
    expect(inspected).toMatchObject({ hasChatTemplate: true, eosToken: '<|eos|>', bosToken: '<|bos|>' });
    const far = largestDifference(await score(file), await score('run:whole'));
    expect(far).toBeLessThan({ f32: 1e-4, f16: 1e-2, q8_0: 0.1, q4_0: 2 }[type]!);
  });

  test('what a layout cannot hold is refused, and another offered', async () => {
    const refused = async (run: string, format: string, ...words: string[]) => {
      const result = await caravan.run('export', run, '--format', format, '--out', 'refused');
      expect(result.code).toBe(2);
      for (const word of words) expect(result.stderr).toContain(word);
      expect(existsSync(place('refused'))).toBe(false);
    };
    await refused('camelidae', 'gguf', 'drop them', 'camelidae');
    await refused('camelidae', 'peft', 'leave out the experts', 'adapter');
    await refused('camelidae', 'merged', 'no place for its experts');
    await refused('camel', 'camelidae', 'no adapter experts', 'merged');
    await refused('camel', 'mixtral', 'upcycle');
    await refused(model, 'merged', 'not a run');
  });

  test("what the published code would compute wrong is refused by the field's name", async () => {
    const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, unknown>;
    const other = writeRandomModel(place('theta'));
    const file = join(other, 'config.json');
    writeFileSync(file, JSON.stringify({ ...config, rope_theta: 500_000 }));
    await train('theta', { model: other, mix: 'sums', method: 'pesc', maxSteps: 1 });
    const result = await caravan.run('export', 'theta', '--format', 'camelidae', '--out', 'refused');
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('rope_theta is 500000');
    expect(result.stderr).toContain('sparsetral');
    expect((await exported('theta', 'sparsetral', 'theta-sparsetral')).parity.passed).toBe(true);
  });

  test('a place that is taken is left alone; the same export again gives the same bytes', async () => {
    mkdirSync(place('taken'));
    writeFileSync(join(place('taken'), 'mine.txt'), 'mine');
    const result = await caravan.run('export', 'whole', '--format', 'merged', '--out', 'taken');
    expect(result.code).toBe(2);
    expect(readdirSync(place('taken'))).toEqual(['mine.txt']);
    await exported('whole', 'merged', 'once');
    await exported('whole', 'merged', 'again');
    for (const name of readdirSync(place('once')))
      expect(readFileSync(join(place('once'), name)).equals(readFileSync(join(place('again'), name)))).toBe(
        true,
      );
  });

  test('exports are listed, and shown with their report', async () => {
    const listed = await caravan.json<Export[]>('export', 'list');
    expect(listed.length).toBeGreaterThan(10);
    expect(listed.every(({ parity }) => parity.passed)).toBe(true);
    const shown = await caravan.run('export', 'show', 'camelidae');
    expect(shown.stdout).toContain('✓ equal to what was trained');
    expect(shown.stdout).toMatch(/tensors +\d+ \(\d+ copied, 14 merged\)/);
  });

  test('a base that changed since the run is not merged into', async () => {
    const changed = writeRandomModel(place('changed'));
    await train('moved', { model: changed, method: 'lora', maxSteps: 1 });
    const weights = join(changed, 'model.safetensors');
    const bytes = readFileSync(weights);
    bytes[bytes.length - 5]! ^= 1;
    writeFileSync(weights, bytes);
    const result = await caravan.run('export', 'moved', '--format', 'merged', '--out', 'refused');
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('not the one that this run was trained on');
  });

  describe.runIf(needs('torch', 'exports by transformers and peft'))('transformers', () => {
    const script = fileURLToPath(new URL('support/transformersScores.py', import.meta.url));
    const byTransformers = (...args: string[]): Score[] => {
      const result = spawnSync('python3', [script, ...args], { encoding: 'utf8', timeout: 120_000 });
      expect(result.stderr.split('\n').filter((line) => line.includes('Error'))).toEqual([]);
      return jsonLines<Score>(result.stdout);
    };
    const file = () => place('rows.jsonl');

    test('scores the merged folder as we score the run', async () => {
      expect(
        largestDifference(byTransformers('folder', place('merged'), file()), await score(place('merged'))),
      ).toBeLessThan(1e-4);
    });

    test('scores the PEFT folder over its base as we do', async () => {
      expect(
        largestDifference(byTransformers('peft', place('peft'), file(), model), await score(place('peft'))),
      ).toBeLessThan(1e-4);
    });

    test('scores the Mixtral as we score the upcycled run', async () => {
      expect(
        largestDifference(byTransformers('folder', place('mixtral'), file()), await score(place('mixtral'))),
      ).toBeLessThan(1e-4);
    });

    test('plain PyTorch scores the published layouts as we do', async () => {
      const plain = fileURLToPath(new URL('../native/test/published_model.py', import.meta.url));
      for (const layout of ['camelidae', 'sparsetral']) {
        const result = spawnSync('python3', [plain, place(layout), file()], { encoding: 'utf8' });
        expect(largestDifference(jsonLines<Score>(result.stdout), await score(place(layout)))).toBeLessThan(
          1e-4,
        );
      }
    });

    test('reads the GGUF files alike', async () => {
      for (const type of ['f32', 'q8_0', 'q4_0']) {
        const gguf = join(place(`gguf-${type}`), `whole.${type.toUpperCase()}.gguf`);
        expect(
          largestDifference(byTransformers('gguf', gguf, file(), model), await score(gguf)),
        ).toBeLessThan(2e-4);
      }
    });
  });
});
