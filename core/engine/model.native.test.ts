import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import {
  demoTokenizer,
  tinyModelOptions,
  tinyTraining,
  writeTinyModel,
  writeTinyShard,
} from '../../tests/support/tinyModel.ts';
import type { Addon, AddonModel, AddonTokenizer, GeneratedToken, GenerateOptions } from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';

const bad = (field: string) =>
  expect.objectContaining({ code: 'bad_option', message: expect.stringContaining(field) as string });

describe.runIf(needs('addon'))('the addon runs a model', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-model-'));
  let addon: Addon;
  let modelDir: string;
  let checkpointDir: string;
  let model: AddonModel;
  let tokenizer: AddonTokenizer;
  let names = 0;
  const request = (change: Partial<GenerateOptions> = {}): GenerateOptions => ({
    generationId: `answer-${++names}`,
    promptIds: Int32Array.of(0, 50, 60, 70),
    maxTokens: 12,
    temperature: 0,
    stopIds: [],
    tokenizer,
    ...change,
  });
  const silent = () => {};

  beforeAll(async () => {
    addon = loadAddon();
    modelDir = writeTinyModel(join(folder, 'model'));
    tokenizer = await addon.openTokenizer(demoTokenizer);
    const trainShard = await writeTinyShard(addon, join(folder, 'train.safetensors'));
    const run = tinyTraining({ modelDir, trainShard, checkpointDir: join(folder, 'checkpoints') });
    const listener = {
      onPhase: silent,
      onLoading: silent,
      onOpened: silent,
      onStep: silent,
      onEvaluation: silent,
      onCheckpoint: silent,
      onLog: silent,
    };
    checkpointDir = (await addon.createTrainer({ ...run, lr: 0.05 }, listener).start()).checkpoint!;
    model = await addon.openModel(tinyModelOptions(modelDir));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('streams the tokens of its answer', async () => {
    const tokens: GeneratedToken[] = [];
    const result = await model.generate(request(), (token) => tokens.push(token));
    expect(result).toMatchObject({ stopReason: 'length', promptTokens: 4 });
    expect(result.ids).toHaveLength(12);
    expect(Int32Array.from(tokens, ({ id }) => id)).toEqual(result.ids);
    expect(tokens.map(({ text }) => text).join('')).toBe(result.text);
    expect(result.text).toBe(tokenizer.decode(result.ids, { skipSpecial: true }));

    const stop = result.ids[4]!;
    const first = result.ids.indexOf(stop);
    const stopped = await model.generate(request({ stopIds: [stop] }), silent);
    expect(stopped.stopReason).toBe('eos');
    expect(stopped.ids).toEqual(result.ids.slice(0, first + 1));
  });

  test('answers greedily what its logits say', async () => {
    const { ids } = await model.generate(request({ maxTokens: 3 }), silent);
    const row = Int32Array.of(0, 50, 60, 70, ...ids);
    const logits = await model.logits(row);
    expect(logits).toHaveLength(row.length * 4096);
    for (const [index, id] of ids.entries()) {
      const at = logits.subarray((3 + index) * 4096, (4 + index) * 4096);
      expect(at.indexOf(Math.max(...at))).toBe(id);
    }
    const [score] = await model.score([row], [4]);
    expect(score).toMatchObject({ greedy: true });
    expect(score!.tokenLogprobs).toHaveLength(3);
    expect(score!.logprob).toBeCloseTo(
      score!.tokenLogprobs.reduce((sum, value) => sum + value, 0),
      9,
    );
  });

  test('ends at a stop string, which the text does not hold', async () => {
    const whole = await model.generate(request({ maxTokens: 24 }), silent);
    const stop = whole.text.slice(6, 9);
    const stopped = await model.generate(request({ maxTokens: 24, stopStrings: [stop] }), silent);
    expect(stopped.stopReason).toBe('stop_string');
    expect(stopped.text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
  });

  test('is cancelled, by its id alone', async () => {
    let count = 0;
    const result = await model.generate(request({ generationId: 'long', maxTokens: 250 }), () => {
      if (++count === 1) model.cancel('another');
      if (count === 3) model.cancel('long');
    });
    expect(result.stopReason).toBe('cancelled');
    expect(result.ids.length).toBeLessThan(250);
    expect(result.ids.length).toBeGreaterThanOrEqual(3);
  });

  test('runs several answers at once, one per id', async () => {
    const alone = await model.generate(request({ maxTokens: 40 }), silent);
    const first = model.generate(request({ generationId: 'same', maxTokens: 40 }), silent);
    await expect(model.generate(request({ generationId: 'same' }), silent)).rejects.toEqual(
      bad('generationId'),
    );
    const results = await Promise.all([first, model.generate(request({ maxTokens: 40 }), silent)]);
    for (const { ids } of results) expect(ids).toEqual(alone.ids);
    expect((await model.generate(request({ generationId: 'same', maxTokens: 2 }), silent)).ids).toHaveLength(
      2,
    );
  });

  test('rejects with what onToken threw, and ends', async () => {
    const told: number[] = [];
    const thrown = new Error('the window is gone');
    await expect(
      model.generate(request({ maxTokens: 200 }), ({ id }) => {
        told.push(id);
        if (told.length === 2) throw thrown;
      }),
    ).rejects.toBe(thrown);
    expect(told).toHaveLength(2);
    await expect(
      model.generate(request(), () => {
        throw 'a string';
      }),
    ).rejects.toBe('a string');
  });

  test('applies a checkpoint, and tells which experts its tokens chose', async () => {
    const crafted = await addon.openModel({ ...tinyModelOptions(modelDir), checkpointDir });
    expect(crafted).toMatchObject({ numExperts: 2, topK: 1 });
    expect(model).toMatchObject({ numExperts: 0, topK: 0 });
    const row = Int32Array.of(0, 50, 60, 70);
    expect(await crafted.logits(row)).not.toEqual(await model.logits(row));
    const route = await crafted.route([row, Int32Array.of(5, 6)], [1, 0], 2);
    expect(route).toMatchObject({ layers: 2, experts: 2, groups: 2, tokens: Float64Array.of(2, 4) });
    expect(route.any).toEqual(route.first);
    expect(route.first[0]! + route.first[1]!).toBe(2);
    const experts: number[] = [];
    await crafted.generate(request({ reportExperts: true, maxTokens: 3 }), (token) => {
      expect(token.experts).toHaveLength(2);
      expect(token.expertWeights).toEqual(Float32Array.of(1, 1));
      experts.push(...token.experts!);
    });
    expect(experts).toHaveLength(6);
    const tokens = await crafted.routeTokens(row);
    expect(tokens).toMatchObject({ layers: 2, experts: 2, topK: 1 });
    expect(tokens.weights).toEqual(new Float32Array(8).fill(1));
    // (tokens, layers, topK): what `route` counts, group 1 being this row.
    const counted = [0, 0, 0, 0];
    tokens.chosen.forEach((expert, at) => counted[(at % 2) * 2 + expert]!++);
    expect(counted).toEqual([...route.any.subarray(4)]);
    await expect(model.routeTokens(row)).rejects.toEqual(bad('experts'));
    await expect(crafted.routeTokens(Int32Array.of(5000))).rejects.toEqual(bad('5000'));
    await expect(model.route([row], [0], 1)).rejects.toEqual(bad('experts'));
    await expect(crafted.route([row], [2], 2)).rejects.toEqual(bad('group'));
    crafted.dispose();
  });

  test('names every option that is missing, unknown or wrong', async () => {
    const right = tinyModelOptions(modelDir);
    const opens: [string, Record<string, unknown>][] = [
      ['modelDir is missing', { ...right, modelDir: undefined }],
      ['baseDtype is missing', { ...right, baseDtype: undefined }],
      ['computeDtype is missing', { ...right, computeDtype: undefined }],
      ['modelDir', { ...right, modelDir: 5 }],
      ['baseDtype', { ...right, baseDtype: 'f16' }],
      ['computeDtype', { ...right, computeDtype: 'nf4' }],
      ['doubleQuant', { ...right, doubleQuant: 'yes' }],
      ['checkpointDir', { ...right, checkpointDir: null }],
      ['threads', { ...right, threads: -1 }],
      ['thread ', { ...right, thread: 1 }],
    ];
    for (const [field, options] of opens)
      await expect(addon.openModel(options as never), field).rejects.toEqual(bad(field));
    await expect(addon.openModel({ ...right, modelDir: join(folder, 'absent') })).rejects.toMatchObject({
      code: 'bad_file',
    });
    const required = ['generationId', 'promptIds', 'maxTokens', 'temperature', 'stopIds', 'tokenizer'];
    for (const field of required)
      await expect(model.generate(request({ [field]: undefined }), silent), field).rejects.toEqual(
        bad(`${field} is missing`),
      );
    const wrong: [string, unknown][] = [
      ['promptIds', 'text'],
      ['promptIds', Int32Array.of()],
      ['promptIds', Int32Array.of(5000)],
      ['maxTokens', 0],
      ['temperature', -1],
      ['topK', -1],
      ['topP', 0],
      ['minP', 2],
      ['repetitionPenalty', 0],
      ['seed', -1],
      ['stopIds', 1],
      ['stopStrings', [1]],
      ['tokenizer', {}],
      ['tokenizer', model],
      ['reportExperts', 1],
      ['maxtokens', 5],
    ];
    for (const [field, value] of wrong)
      await expect(model.generate(request({ [field]: value }), silent), field).rejects.toEqual(bad(field));
    await expect(model.generate(request(), undefined as never)).rejects.toEqual(bad('onToken'));
    await expect(model.score([Int32Array.of(1, 2)], [])).rejects.toEqual(bad('firstScored'));
    await expect(model.score([Int32Array.of(1, 2)], [3])).rejects.toEqual(bad('firstScored'));
    await expect(model.score('x' as never, [])).rejects.toEqual(bad('rows'));
    await expect(model.logits(Int32Array.of(-1))).rejects.toEqual(bad('-1'));
  });

  test('ends its answers when it is disposed, and says so afterwards', async () => {
    const other = await addon.openModel(tinyModelOptions(modelDir));
    expect(other.memoryBytes).toBeGreaterThan(4096 * 32 * 4);
    let told = 0;
    const result = await other.generate(request({ maxTokens: 250 }), () => {
      if (++told === 2) other.dispose();
    });
    expect(result.stopReason).toBe('cancelled');
    other.dispose();
    const disposed = expect.objectContaining({ code: 'wrong_state' }) as Error;
    await expect(other.generate(request(), silent)).rejects.toEqual(disposed);
    await expect(other.score([], [])).rejects.toEqual(disposed);
    await expect(other.logits(Int32Array.of(1))).rejects.toEqual(disposed);
    expect(() => other.memoryBytes).toThrow(disposed);
    other.cancel('nothing');
  });

  test('may be collected while it answers', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const start = async () => {
      const other = await addon.openModel(tinyModelOptions(modelDir));
      const own = await addon.openTokenizer(demoTokenizer);
      let told = 0;
      return other.generate(request({ maxTokens: 60, tokenizer: own }), () => {
        if (++told % 20 === 1) collect();
      });
    };
    const expected = await model.generate(request({ maxTokens: 60 }), silent);
    const underWay = start();
    for (let i = 0; i < 5; i++) {
      collect();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await underWay).ids).toEqual(expected.ids);
  });
});
