/** Named starting points for a run: what the published models were trained with, and the embedded demo. */
import type { RunConfigInput } from './runConfig.ts';

export interface RunPreset {
  id: string;
  title: string;
  /** The base and mix that it belongs to, in words. */
  made: string;
  /** What differs from the schema's defaults. Model, mix and machine are never a preset's. */
  config: Omit<RunConfigInput, 'name' | 'model' | 'mix' | 'device' | 'threads' | 'seed'>;
}

/** The published code trains in bf16 and computes activations again, layer by layer. */
const published = { trainDtype: 'bf16', recompute: true } as const;

export const runPresets: readonly RunPreset[] = [
  { id: 'defaults', title: 'Defaults', made: 'the paper’s numbers in fp32, for any model', config: {} },
  {
    id: 'camel-7b',
    title: 'Camel-7B',
    made: 'Llama-2 7B on IDAE-500K, the dense baseline',
    config: { ...published, method: 'lora' },
  },
  ...[4, 8, 16].map((experts) => ({
    id: `camelidae-${experts}x7b`,
    title: `Camelidae-${experts}x7B`,
    made: 'Llama-2 7B on IDAE-500K',
    config: { ...published, numExperts: experts },
  })),
  {
    id: 'camelidae-8x13b',
    title: 'Camelidae-8x13B',
    made: 'Llama-2 13B on IDAE-500K',
    config: { ...published },
  },
  {
    id: 'camelidae-8x34b',
    title: 'Camelidae-8x34B',
    made: 'Yi 34B on IDAE-500K',
    config: { ...published },
  },
  {
    id: 'qwen2idae-16x14b',
    title: 'Qwen2idae-16x14B',
    made: 'Qwen1.5 14B on IDAE',
    config: { ...published, numExperts: 16, topK: 4 },
  },
  {
    id: 'demo',
    title: 'Demo',
    made: 'the embedded model on the demo’s mix',
    config: {
      method: 'pesc',
      baseDtype: 'bf16',
      computeDtype: 'f32',
      loraRank: 16,
      loraAlpha: 16,
      loraDropout: 0,
      numExperts: 8,
      topK: 2,
      adapterDim: 64,
      adapterDropout: 0,
      batchSize: 8,
      microBatchSize: 4,
      seqLen: 256,
      epochs: 3,
      lr: 0.0025,
      schedule: 'cosine',
      warmupRatio: 0.05,
      maxGradNorm: 1,
      evalSteps: 100,
      saveSteps: 100,
      keepCheckpoints: 2,
    },
  },
];
