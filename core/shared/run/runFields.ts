/** What a person is told of each field of run.yaml, beside what the schema itself says: its group, unit, effect, and paper value. */
import * as z from 'zod';
import { runConfigSchema, type RunConfig } from './runConfig.ts';

export const runGroups = [
  'Model',
  'Mix',
  'Method',
  'Experts',
  'LoRA',
  'Quantisation',
  'Optimisation',
  'Batch and length',
  'Checkpoints',
  'Evaluation',
  'Machine',
] as const;
export type RunGroup = (typeof runGroups)[number];
export type RunKey = keyof typeof runConfigSchema.shape;

export interface RunFieldText {
  group: RunGroup;
  title: string;
  unit?: string;
  /** Shown to those who did not ask for everything. */
  basic?: true;
  /** What it does to memory and quality. */
  effect: string;
  /** What the paper (arXiv 2401.02731) used; absent where it says nothing. */
  paper?: string;
}

export const runFields = {
  name: {
    group: 'Model',
    title: 'Name of the run',
    basic: true,
    effect: 'Empty: named after model and method. A taken name gets a number.',
  },
  model: {
    group: 'Model',
    title: 'Base model',
    basic: true,
    effect: 'What training starts from. Its size decides most of the memory.',
    paper: 'Llama-2 7B and 13B, Yi 34B, Qwen1.5 14B',
  },
  mix: {
    group: 'Mix',
    title: 'Mix',
    basic: true,
    effect: 'The rows, tokenised for this model. No effect on memory; nothing decides more about quality.',
    paper: 'IDAE',
  },
  method: {
    group: 'Method',
    title: 'Method',
    basic: true,
    effect:
      'pesc: LoRA, adapter experts and routers over a frozen base. lora: the same without experts. full and upcycle train every weight, at 16 bytes a parameter in fp32 and 12 for the checkpoint’s copy.',
    paper: 'pesc',
  },
  adapterDim: {
    group: 'Experts',
    title: 'Expert width',
    unit: 'channels',
    basic: true,
    effect:
      'Bottleneck of an expert: 2 × hidden × this many parameters per expert and layer. Wider learns more.',
    paper: '512',
  },
  numExperts: {
    group: 'Experts',
    title: 'Experts',
    unit: 'per layer',
    basic: true,
    effect: 'Memory grows with each one (upcycle: by a whole MLP); time hardly does.',
    paper: '8 (also 4 and 16)',
  },
  topK: {
    group: 'Experts',
    title: 'Experts of a token',
    unit: 'of them',
    basic: true,
    effect: 'Time and activations grow with it, parameters do not.',
    paper: '2 (Qwen2idae 4)',
  },
  adapterDropout: {
    group: 'Experts',
    title: 'Expert dropout',
    effect: 'Share of the experts’ input that is dropped in training. Holds overfitting back; no memory.',
    paper: '0.1',
  },
  adapterScale: {
    group: 'Experts',
    title: 'Expert scale',
    effect: 'Factor on the experts’ sum. No memory.',
    paper: '1 (published checkpoints carry 0.25)',
  },
  balanceCoefficient: {
    group: 'Experts',
    title: 'Balance loss',
    effect: 'Weight of the loss that keeps experts evenly used. 0 turns it off, and routers may collapse.',
    paper: '0.01',
  },
  loraRank: {
    group: 'LoRA',
    title: 'Rank',
    basic: true,
    effect: 'Of LoRA on all seven projections; parameters and optimizer state grow with it.',
    paper: '64',
  },
  loraAlpha: {
    group: 'LoRA',
    title: 'Alpha',
    effect: 'LoRA is scaled by alpha / rank. No memory.',
    paper: '16',
  },
  loraDropout: {
    group: 'LoRA',
    title: 'Dropout',
    effect: 'Share of each LoRA input that is dropped in training. Holds overfitting back; no memory.',
    paper: '0.1',
  },
  baseDtype: {
    group: 'Quantisation',
    title: 'Base stored as',
    basic: true,
    effect:
      'nf4 takes about 0.52 bytes a weight, bf16 2, f32 4. What NF4 costs in quality is measured before the first step.',
    paper: 'nf4',
  },
  doubleQuant: {
    group: 'Quantisation',
    title: 'Double quantisation',
    effect: 'Quantises NF4’s scales too: 0.37 bits a weight less, at hardly any cost.',
    paper: 'yes',
  },
  computeDtype: {
    group: 'Quantisation',
    title: 'Computed in',
    effect:
      'Matrix products and activations; f32 doubles what activations take. Norms, softmax, router, loss and optimizer are fp32 in any case.',
    paper: 'bf16',
  },
  trainDtype: {
    group: 'Quantisation',
    title: 'Trained in',
    effect:
      'Trained parameters and their gradients. bf16 halves both, with stochastic rounding; held-out loss stays within 0.5 %.',
    paper: 'bf16 in the published code',
  },
  lr: {
    group: 'Optimisation',
    title: 'Learning rate',
    basic: true,
    effect:
      'Too high shows as a loss that jumps or steps that are skipped, too low as one that hardly falls. No memory.',
    paper: '0.0002',
  },
  schedule: {
    group: 'Optimisation',
    title: 'Schedule',
    effect: 'After warm-up: constant, or linear or cosine down to 0.',
    paper: 'constant',
  },
  warmupRatio: {
    group: 'Optimisation',
    title: 'Warm-up',
    unit: 'of all steps',
    effect: 'The rate rises from 0 over this share; at least one step.',
    paper: '0.03',
  },
  optimizer: {
    group: 'Optimisation',
    title: 'Optimizer',
    effect:
      'adamw8bit keeps its state in a quarter of the memory; the loss hardly differs. paged_…: the state in the machine’s memory instead of the GPU’s, with the same results, fetched at each update.',
    paper: 'paged AdamW, 32 bit',
  },
  maxGradNorm: {
    group: 'Optimisation',
    title: 'Gradient norm at most',
    effect:
      'Larger gradients are scaled down to it; 0 never does. Larger for small models with a large rate.',
    paper: '0.3 in the published code',
  },
  weightDecay: {
    group: 'Optimisation',
    title: 'Weight decay',
    unit: 'of lr a step',
    effect: 'Pulls trained weights to 0.',
    paper: '0',
  },
  beta1: {
    group: 'Optimisation',
    title: 'Beta 1',
    effect: 'AdamW’s memory of gradients.',
    paper: '0.9',
  },
  beta2: {
    group: 'Optimisation',
    title: 'Beta 2',
    effect: 'AdamW’s memory of their squares.',
    paper: '0.999',
  },
  eps: { group: 'Optimisation', title: 'Epsilon', effect: 'AdamW’s smallest denominator.' },
  batchSize: {
    group: 'Batch and length',
    title: 'Batch',
    unit: 'conversations a step',
    basic: true,
    effect: 'No effect on memory. With few rows take a smaller one, so that there are enough steps.',
    paper: '128',
  },
  microBatchSize: {
    group: 'Batch and length',
    title: 'Micro-batch',
    unit: 'bins at once',
    basic: true,
    effect:
      'Activations and logits grow with it; results do not change beyond rounding (the balance loss aside).',
    paper: '1 in the published code',
  },
  seqLen: {
    group: 'Batch and length',
    title: 'Length',
    unit: 'tokens a bin',
    basic: true,
    effect: 'At least the mix’s, at most the model’s positions. Activations grow with it.',
    paper: '2048',
  },
  packing: {
    group: 'Batch and length',
    title: 'Packing',
    effect:
      'Several conversations in one bin, without letting them see each other: faster, and the same rows in every step.',
  },
  epochs: {
    group: 'Batch and length',
    title: 'Epochs',
    unit: 'passes over the mix',
    basic: true,
    effect: 'More passes take more time and overfit sooner: watch the held-out loss. No memory.',
    paper: '1',
  },
  maxSteps: {
    group: 'Batch and length',
    title: 'Steps at most',
    unit: 'steps',
    basic: true,
    effect: 'Ends earlier than the epochs would. Empty: no limit.',
  },
  recompute: {
    group: 'Batch and length',
    title: 'Recompute activations',
    basic: true,
    effect:
      'Computes them again in the backward pass: far less memory, about a third more time, equal results.',
    paper: 'yes in the published code',
  },
  recomputeLayers: {
    group: 'Batch and length',
    title: 'Recomputed layers',
    unit: 'layers',
    effect:
      'With recomputation: of how many layers, the first ones. Each one kept instead takes memory and saves its share of the time. Empty: all.',
  },
  saveSteps: {
    group: 'Checkpoints',
    title: 'Checkpoint every',
    unit: 'steps',
    basic: true,
    effect: '0: only at the end. A crash costs what was trained since the last one.',
  },
  keepCheckpoints: {
    group: 'Checkpoints',
    title: 'Checkpoints kept',
    unit: 'newest',
    effect: 'Disk, not memory. The one with the best held-out loss stays besides.',
  },
  evalSteps: {
    group: 'Evaluation',
    title: 'Held-out loss every',
    unit: 'steps',
    basic: true,
    effect: '0: only before the first and after the last step. Each measurement takes time, no memory.',
  },
  device: {
    group: 'Machine',
    title: 'Device',
    basic: true,
    effect:
      'The GPU where there is one (cuda:1 is the second); on the processor only small models train in reasonable time.',
  },
  threads: {
    group: 'Machine',
    title: 'CPU threads',
    unit: 'threads',
    effect: '0: one per core. Results do not depend on it.',
  },
  seed: {
    group: 'Machine',
    title: 'Seed',
    effect: 'Initial weights, order of rows, dropout: the same seed gives the same run.',
  },
} as const satisfies Record<RunKey, RunFieldText>;

/** Settings that a method makes no use of. */
export const unusedFields: Record<RunConfig['method'], readonly RunKey[]> = {
  pesc: [],
  lora: ['numExperts', 'topK', 'adapterDim', 'adapterDropout', 'adapterScale', 'balanceCoefficient'],
  full: [
    'numExperts',
    'topK',
    'adapterDim',
    'adapterDropout',
    'adapterScale',
    'balanceCoefficient',
    'loraRank',
    'loraAlpha',
    'loraDropout',
    'doubleQuant',
  ],
  upcycle: [
    'adapterDim',
    'adapterDropout',
    'adapterScale',
    'loraRank',
    'loraAlpha',
    'loraDropout',
    'doubleQuant',
  ],
};

/** How a field is entered, read from the schema. */
export type FieldShape =
  | { kind: 'text' | 'flag'; range: '' }
  | { kind: 'number'; integer: boolean; range: string }
  | { kind: 'choice'; choices: readonly string[]; range: '' };

interface JsonField {
  type?: string;
  enum?: string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

/** Every field's shape by its key, in the order of the schema. */
export function runFieldShapes(): Map<RunKey, FieldShape> {
  const { properties } = z.toJSONSchema(runConfigSchema, { io: 'input' }) as {
    properties: Record<string, JsonField>;
  };
  return new Map(Object.entries(properties).map(([key, field]) => [key as RunKey, shapeOf(field)]));
}

function shapeOf(field: JsonField): FieldShape {
  if (field.enum) return { kind: 'choice', choices: field.enum, range: '' };
  if (field.type === 'boolean') return { kind: 'flag', range: '' };
  if (field.type === 'string') return { kind: 'text', range: '' };
  return { kind: 'number', integer: field.type === 'integer', range: rangeOf(field) };
}

function rangeOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: JsonField): string {
  const low =
    exclusiveMinimum !== undefined ? `above ${exclusiveMinimum}` : minimum !== undefined ? `${minimum}` : '';
  const high =
    exclusiveMaximum !== undefined
      ? `below ${exclusiveMaximum}`
      : maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER
        ? `${maximum}`
        : '';
  if (low !== '' && high !== '') return `${low} to ${high}`;
  return low !== '' && exclusiveMinimum === undefined ? `at least ${low}` : low;
}

/** What the schema sets where run.yaml says nothing; undefined where it sets nothing. */
export function runDefaults(): Partial<RunConfig> {
  const { model: _model, mix: _mix, ...defaults } = runConfigSchema.parse({ model: '-', mix: '-' });
  return defaults;
}
