/** Graphs of every family, run by ONNX Runtime and held to the engine. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeRandomModel, type RandomModelOptions } from '../../tests/support/randomModel.ts';
import { needs } from '../../tests/support/skip.ts';
import { demoTokenizer, tinyTraining, writeTinyShard } from '../../tests/support/tinyModel.ts';
import { openOnnxModel, type ChatModel } from '../onnx/session/openOnnxModel.ts';
import { loadRuntime } from '../onnx/session/runtime.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { OnnxType } from '../shared/model/onnxModel.ts';
import type { Addon, AddonModel, AddonTokenizer, ExportedModel, GenerateOptions } from './AddonTypes.ts';
import { exportOnnx } from './exportOnnx.ts';
import { loadAddon } from './loadAddon.ts';

/** Heads of 16 and rows of whole blocks: what the graph's operators ask for. */
const sizes = { headDim: 16, hidden: 64, intermediate: 96 };

const families: Record<string, RandomModelOptions> = {
  Llama: {},
  'Llama 3.1, its scaled positions, and a head of its own': {
    untied: true,
    config: {
      rope_theta: 500_000,
      rope_scaling: {
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
      },
    },
  },
  'Qwen2, with biases': {
    biases: true,
    config: { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' },
  },
  'Qwen3, with norms of heads': {
    headNorms: true,
    config: { architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3' },
  },
  'Mistral, through a window': {
    config: { architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 24 },
  },
  'SmolLM3, with layers that do not rotate': {
    layers: 4,
    config: { architectures: ['SmolLM3ForCausalLM'], model_type: 'smollm3' },
  },
};

describe.runIf(needs('addon', 'ONNX exports held to the engine'))('ONNX exports', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-onnx-'));
  let addon: Addon;
  let tokenizer: AddonTokenizer;
  let exports = 0;
  let answers = 0;
  // Longer than a piece of a prompt, and than the window.
  const rows = [150, 40, 1].map((length) => Int32Array.from({ length }, (_, i) => (i * 37 + 5) % 4096));

  beforeAll(async () => {
    addon = loadAddon();
    tokenizer = await addon.openTokenizer(demoTokenizer);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function exported(
    modelDir: string,
    type: OnnxType,
    checkpointDir = '',
  ): Promise<{ outDir: string; made: ExportedModel }> {
    const outDir = join(folder, `export-${++exports}`);
    mkdirSync(outDir);
    const made = await exportOnnx(
      addon,
      {
        modelDir,
        checkpointDir,
        baseDtype: 'f32',
        doubleQuant: true,
        layout: 'onnx',
        type,
        originalBase: false,
        outDir,
        shardBytes: 1,
        baseName: '',
        baseIdentity: '',
        ggufFile: '',
        ggufName: '',
        tokenizerPath: '',
        chatTemplate: '',
        eosIds: [1],
      },
      rows,
      { tell: () => {}, signal: new AbortController().signal, bosId: 0 },
    );
    return { outDir, made };
  }

  const open = async (outDir: string): Promise<ChatModel> =>
    openOnnxModel(outDir, {
      runtime: await loadRuntime(),
      providers: [{ name: 'cpu', missing: null }],
      addon,
    });

  const request = (change: Partial<GenerateOptions> = {}): GenerateOptions => ({
    generationId: `answer-${++answers}`,
    promptIds: rows[1]!,
    maxTokens: 60,
    temperature: 0,
    stopIds: [],
    tokenizer,
    ...change,
  });
  const answer = async (model: ChatModel, change: Partial<GenerateOptions> = {}) =>
    model.generate(request(change), () => {});

  /** Greedy, by chance, until a string, and token by token. */
  async function expectAlike(outDir: string, engine: AddonModel): Promise<void> {
    const model = await open(outDir);
    for (const change of [
      {},
      { temperature: 1, seed: 7, topK: 40 },
      { promptIds: rows[0]!, maxTokens: 30 },
    ]) {
      const [ours, theirs] = [await answer(engine, change), await answer(model, change)];
      expect({ ...theirs, promptMs: 0, generateMs: 0, tokensPerSecond: 0 }).toEqual({
        ...ours,
        promptMs: 0,
        generateMs: 0,
        tokensPerSecond: 0,
      });
    }
    const [ours, theirs] = [
      await engine.score(rows.slice(0, 2), [1, 3]),
      await model.score(rows.slice(0, 2), [1, 3]),
    ];
    theirs.forEach((row, index) =>
      row.tokenLogprobs.forEach((value, place) =>
        expect(value).toBeCloseTo(ours[index]!.tokenLogprobs[place]!, 3),
      ),
    );
    model.dispose();
  }

  test.each(Object.entries(families))('%s', async (name, options) => {
    const modelDir = writeRandomModel(join(folder, name), { ...sizes, ...options });
    const { outDir, made } = await exported(modelDir, 'f32');
    expect(made.parity).toMatchObject({
      passed: true,
      reference: 'trained',
      loss: null,
      tensors: { wrong: [] },
    });
    expect(made.parity.logits.maxDifference).toBeLessThan(1e-4);
    const engine = await addon.openModel({ modelDir, baseDtype: 'f32', computeDtype: 'f32' });
    await expectAlike(outDir, engine);
    engine.dispose();

    expect((await exported(modelDir, 'f16')).made.parity).toMatchObject({
      passed: true,
      tensors: { wrong: [] },
    });
    const four = (await exported(modelDir, 'int4')).made.parity;
    expect(four).toMatchObject({ passed: true, reference: 'dequantised', tensors: { wrong: [] } });
    expect(four.logits.maxDifference).toBeLessThan(1e-3);
    expect(four.loss!.maxDifference).toBeGreaterThan(four.logits.maxDifference);
  });

  test('a crafted run: its router, and the adapters of the experts it chose', async () => {
    const modelDir = writeRandomModel(join(folder, 'crafted'), { ...sizes });
    const trainShard = await writeTinyShard(addon, join(folder, 'train.safetensors'));
    const run = tinyTraining({ modelDir, trainShard, checkpointDir: join(folder, 'checkpoints') });
    const silent = () => {};
    const listener = {
      onPhase: silent,
      onLoading: silent,
      onOpened: silent,
      onStep: silent,
      onEvaluation: silent,
      onCheckpoint: silent,
      onLog: silent,
    };
    // A scale that is not 1, and experts enough for both ways to multiply.
    const trainer = addon.createTrainer({ ...run, numExperts: 8, adapterScale: 0.5, lr: 0.05 }, listener);
    const checkpointDir = (await trainer.start()).checkpoint!;
    const { outDir, made } = await exported(modelDir, 'f32', checkpointDir);
    expect(made.parity).toMatchObject({ passed: true, tensors: { wrong: [] } });
    expect(made.parity.tensors.merged).toBe(14);
    expect(made.parity.logits.maxDifference).toBeLessThan(1e-4);
    const engine = await addon.openModel({ modelDir, checkpointDir, baseDtype: 'f32', computeDtype: 'f32' });
    await expectAlike(outDir, engine);
    engine.dispose();
    for (const type of ['f16', 'int4'] as const)
      expect((await exported(modelDir, type, checkpointDir)).made.parity).toMatchObject({
        passed: true,
        tensors: { wrong: [] },
      });
  });

  test('an answer can be cancelled, and stops where it is told to', async () => {
    const modelDir = writeRandomModel(join(folder, 'stopping'), sizes);
    const model = await open((await exported(modelDir, 'f32')).outDir);
    const whole = await answer(model);
    const generationId = 'cancelled';
    let tokens = 0;
    const cut = await model.generate(request({ generationId }), () => {
      if (++tokens === 5) model.cancel(generationId);
    });
    expect(cut).toMatchObject({ stopReason: 'cancelled' });
    expect(cut.ids).toEqual(whole.ids.slice(0, 5));
    const stopAt = whole.ids[8]!;
    const first = whole.ids.indexOf(stopAt);
    expect(await answer(model, { stopIds: [stopAt] })).toMatchObject({
      stopReason: 'eos',
      ids: whole.ids.slice(0, first + 1),
    });
    const word = whole.text.slice(10, 14);
    const stopped = await answer(model, { stopStrings: [word] });
    expect(stopped).toMatchObject({
      stopReason: 'stop_string',
      text: whole.text.slice(0, whole.text.indexOf(word)),
    });
    const room = 256 - rows[1]!.length;
    expect(await answer(model, { maxTokens: 1000 })).toMatchObject({
      stopReason: 'context',
      promptTokens: 40,
    });
    expect((await answer(model, { maxTokens: 1000 })).ids).toHaveLength(room);
    await expect(model.route([], [], 1)).rejects.toMatchObject({ code: 'bad_option' });
    await expect(model.score([Int32Array.of(5000)], [1])).rejects.toThrow('vocabulary');
    model.dispose();
    await expect(answer(model)).rejects.toMatchObject({ code: 'wrong_state' });
  });

  test('graphs with changed bytes run, or are refused', async () => {
    const modelDir = writeRandomModel(join(folder, 'damaged'), sizes);
    const { outDir } = await exported(modelDir, 'int4');
    const file = join(outDir, 'model.onnx');
    const whole = readFileSync(file);
    let state = 11;
    const next = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    let refused = 0;
    for (let round = 0; round < 100; round++) {
      const bytes = Buffer.from(whole);
      bytes[next(bytes.length)] = next(256);
      writeFileSync(file, bytes);
      try {
        const model = await open(outDir);
        try {
          await model.logits(rows[1]!);
        } finally {
          model.dispose();
        }
      } catch (error) {
        expect(error).toBeInstanceOf(CaravanError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(20);
  });

  test('what the graph has no place for is refused, with a way out', async () => {
    const heads = writeRandomModel(join(folder, 'heads'), { headDim: 8 });
    await expect(exported(heads, 'f32')).rejects.toThrow(/8 elements.*multiple of 16; use merged or adapter/);
    const columns = writeRandomModel(join(folder, 'columns'), { ...sizes, intermediate: 80 });
    await expect(exported(columns, 'int4')).rejects.toThrow(/80 columns.*use type f16/);
    expect((await exported(columns, 'f16')).made.parity.passed).toBe(true);
  });
});
