import { describe, expect, test } from 'vitest';
import type { Export, Parity } from '../../../core/shared/model/export.ts';
import type { Model } from '../../../core/shared/model/model.ts';
import type { Run } from '../../../core/shared/run/run.ts';
import { configOf, variedOf, type Asked } from './largest.ts';
import {
  bytesOf,
  exportedName,
  exportsOf,
  formatEpsilon,
  matches,
  parameterGroups,
  runsOf,
  worstStepZero,
} from './modelWords.ts';
import { parityChecks, sortTensors, unusedByLayer, type ComparedTensor } from './parityWords.ts';

const model = {
  id: 'm1',
  name: 'Tiny',
  dir: '/models/tiny',
  family: 'llama',
  architecture: 'LlamaForCausalLM',
  storedDtypes: ['BF16'],
  identity: 'abc',
  parameters: { embedding: 50, attention: 20, mlp: 20, norms: 1, head: 0, total: 100 },
} as unknown as Model;
const run = (of: string, stepZeroDifference: number | null = null) =>
  ({ config: { model: of }, stepZeroDifference }) as unknown as Run;

describe('who uses a model', () => {
  test('runs by its name, id or path', () => {
    const runs = [run('Tiny'), run('m1'), run('/models/tiny'), run('other')];
    expect(runsOf(model, runs)).toEqual(runs.slice(0, 3));
  });
  test('exports by the hash of its tensors, wherever the folder was then', () => {
    const made = [
      { base: { name: '/elsewhere', identity: 'abc' } },
      { base: { name: '/models/tiny', identity: 'changed since' } },
    ] as unknown as Export[];
    expect(exportsOf(model, made)).toEqual(made.slice(0, 1));
    expect(exportsOf({ ...model, identity: null }, made)).toEqual(made.slice(1));
  });
  test('the worst difference at step 0, over the runs that measured it', () => {
    expect(worstStepZero([run('Tiny'), run('Tiny', 0), run('Tiny', -2e-6)])).toEqual({
      runs: 2,
      difference: 2e-6,
    });
    expect(worstStepZero([run('Tiny')])).toBeNull();
  });
});

test('groups of parameters sum to the total, and what the others leave is the experts', () => {
  const groups = parameterGroups({
    ...model,
    experts: { count: 8, topK: 2, adapterDim: 4, adapterScale: 1, parameters: 9 },
  });
  expect(groups.map(({ title, count }) => [title, count])).toEqual([
    ['Embedding', 50],
    ['Attention', 20],
    ['MLP', 20],
    ['Experts and routers', 9],
    ['Norms', 1],
  ]);
  expect(groups.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
});

test('a search takes all its words, in any field', () => {
  expect(matches(model, 'tiny bf16')).toBe(true);
  expect(matches(model, 'LLAMA')).toBe(true);
  expect(matches(model, 'tiny f32')).toBe(false);
});

test('bytes are those of UTF-8', () => {
  expect(bytesOf('a—🐪')).toBe('61 e2 80 94 f0 9f 90 aa');
});

test('an epsilon is shown as it was written', () => {
  expect(formatEpsilon(Math.fround(1e-5))).toBe('1e-5');
  expect(formatEpsilon(Math.fround(1.5e-6))).toBe('1.5e-6');
});

test('an export is called after its run, or after the model as it came', () => {
  const base = { name: 'C:\\models\\tiny', identity: '' };
  expect(exportedName({ run: null, base })).toBe('tiny');
  expect(exportedName({ run: { id: 'r', name: 'first', method: 'lora', step: 1 }, base })).toBe('first');
});

describe('a parity report', () => {
  const logits = {
    tokens: 10,
    maxDifference: 5e-4,
    meanDifference: 1e-4,
    kl: 1e-6,
    maxKl: 1e-5,
    sameChoice: 10,
    decided: 9,
    decidedOtherwise: 0,
  };
  const parity: Parity = {
    passed: true,
    limit: 'largest logit difference at most 1e-3',
    reference: 'trained',
    logits,
    loss: null,
    tensors: {
      tensors: 2,
      elements: 12,
      copied: 2,
      merged: 0,
      quantised: 0,
      maxDifference: 0,
      maxTensor: 'a',
      wrong: [],
    },
    prompts: { checked: 6, different: 0 },
    unusedExperts: [],
  };
  const passed = (change: Partial<Parity>) =>
    parityChecks({ parity: { ...parity, ...change } }).map((check) => check.passed);

  test('names the check that failed', () => {
    expect(passed({})).toEqual([true, true, true]);
    expect(passed({ passed: false, tensors: { ...parity.tensors, wrong: ['a is missing'] } })).toEqual([
      false,
      true,
      true,
    ]);
    expect(passed({ passed: false, prompts: { checked: 6, different: 1 } })).toEqual([true, true, false]);
    expect(passed({ passed: false, logits: { ...logits, maxDifference: 0.1 } })).toEqual([true, false, true]);
    // Two at once: the logits are judged by their limit.
    expect(
      passed({
        passed: false,
        prompts: { checked: 6, different: 1 },
        logits: { ...logits, maxDifference: null },
      }),
    ).toEqual([true, false, false]);
  });

  test('lists experts without a token by layer', () => {
    expect(
      unusedByLayer([
        { layer: 2, expert: 1 },
        { layer: 0, expert: 3 },
        { layer: 2, expert: 5 },
      ]),
    ).toEqual([
      { layer: 0, experts: [3] },
      { layer: 2, experts: [1, 5] },
    ]);
  });

  test('sorts tensors: broken ones first, then by difference; not a number is the largest', () => {
    const tensor = (name: string, difference: number | null, wrong = 0): ComparedTensor => ({
      name,
      rule: 'copied',
      elements: 1,
      difference,
      wrong,
    });
    const all = [tensor('l.10', 0.1), tensor('l.2', null), tensor('l.3', 0.01, 1), tensor('m.1', 0.5)];
    const names = (by: 'difference' | 'name' | 'file', search = '') =>
      sortTensors(all, by, search).map(({ name }) => name);
    expect(names('difference')).toEqual(['l.3', 'l.2', 'm.1', 'l.10']);
    expect(names('name')).toEqual(['l.2', 'l.3', 'l.10', 'm.1']);
    expect(names('file', 'L.')).toEqual(['l.10', 'l.2', 'l.3']);
    expect(all[0]!.name).toBe('l.10');
  });
});

describe('the plan asked backwards', () => {
  const asked: Asked = {
    mix: 'both',
    method: 'pesc',
    baseDtype: 'nf4',
    microBatchSize: 1,
    seqLen: 128,
    adapterDim: 8,
    loraRank: 4,
    memoryGiB: null,
  };
  test('asks for what the method has', () => {
    expect(variedOf('pesc')).toEqual(['microBatchSize', 'seqLen', 'adapterDim', 'loraRank']);
    expect(variedOf('lora')).toEqual(['microBatchSize', 'seqLen', 'loraRank']);
    expect(variedOf('full')).toEqual(['microBatchSize', 'seqLen']);
  });
  test('a method that trains every weight keeps none in NF4; a wrong number asks nothing', () => {
    expect(configOf('tiny', 'cpu', asked)).toMatchObject({ baseDtype: 'nf4', adapterDim: 8 });
    expect(configOf('tiny', 'cpu', { ...asked, method: 'full' })?.baseDtype).toBe('f32');
    expect(configOf('tiny', 'cpu', { ...asked, seqLen: 1 })).toBeNull();
  });
});
