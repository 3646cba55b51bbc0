import { describe, expect, test } from 'vitest';
import { runPresets } from './presets.ts';
import { runConfigSchema } from './runConfig.ts';
import { runDefaults, runFields, runFieldShapes, runGroups } from './runFields.ts';

describe('fields of run.yaml', () => {
  const shapes = runFieldShapes();

  test('each has its text and its shape, and each group has a field', () => {
    expect(Object.keys(runFields).sort()).toEqual(Object.keys(runConfigSchema.shape).sort());
    expect([...shapes.keys()].sort()).toEqual(Object.keys(runFields).sort());
    const used = new Set(Object.values(runFields).map(({ group }) => group));
    expect([...used].sort()).toEqual([...runGroups].sort());
  });

  test.each([
    ['loraRank', { kind: 'number', integer: true, range: '1 to 1024' }],
    ['lr', { kind: 'number', integer: false, range: 'above 0' }],
    ['beta1', { kind: 'number', integer: false, range: '0 to below 1' }],
    ['batchSize', { kind: 'number', integer: true, range: 'at least 1' }],
    ['maxSteps', { kind: 'number', integer: true, range: 'at least 1' }],
    ['packing', { kind: 'flag', range: '' }],
    [
      'optimizer',
      { kind: 'choice', choices: ['adamw', 'adamw8bit', 'paged_adamw', 'paged_adamw8bit'], range: '' },
    ],
    ['model', { kind: 'text', range: '' }],
  ] as const)('%s', (key, shape) => {
    expect(shapes.get(key)).toEqual(shape);
  });
});

test.each(runPresets)('preset $title is a configuration that the schema takes', ({ config }) => {
  const parsed = runConfigSchema.parse({ ...config, model: 'm', mix: 'x' });
  expect(parsed).toMatchObject(config);
});

test('presets of the published models hold the paper’s numbers', () => {
  const of = (id: string) => ({ ...runDefaults(), ...runPresets.find((preset) => preset.id === id)!.config });
  const paper = { lr: 2e-4, batchSize: 128, seqLen: 2048, loraRank: 64, loraAlpha: 16, warmupRatio: 0.03 };
  for (const { id } of runPresets.filter((preset) => preset.id !== 'demo'))
    expect(of(id)).toMatchObject({ ...paper, baseDtype: 'nf4', schedule: 'constant', epochs: 1 });
  expect(of('camel-7b').method).toBe('lora');
  expect(of('camelidae-4x7b')).toMatchObject({ method: 'pesc', numExperts: 4, topK: 2, adapterDim: 512 });
  expect(of('camelidae-16x7b')).toMatchObject({ numExperts: 16, topK: 2 });
  expect(of('qwen2idae-16x14b')).toMatchObject({ numExperts: 16, topK: 4 });
});
