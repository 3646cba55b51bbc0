import * as z from 'zod';
import { devices } from './device.ts';

export const methods = ['pesc', 'lora', 'full', 'upcycle'] as const;

const probability = z.number().min(0).max(0.95);

/**
 * run.yaml: everything a run is asked to do. Defaults are the paper's (arXiv 2401.02731, table 6) unless said.
 * Names are those of the engine's options, so that one vocabulary serves file, form, command line and addon.
 */
export const runConfigSchema = z
  .object({
    name: z.string().min(1).optional(),
    /** A name in the model library, or a folder. */
    model: z.string().min(1),
    /** A name among the built mixes, or a mix folder. */
    mix: z.string().min(1),
    method: z.enum(methods).default('pesc'),

    baseDtype: z.enum(['f32', 'bf16', 'nf4']).default('nf4'),
    doubleQuant: z.boolean().default(true),
    computeDtype: z.enum(['f32', 'bf16']).default('bf16'),
    trainDtype: z.enum(['f32', 'bf16']).default('f32'),

    loraRank: z.number().int().min(1).max(1024).default(64),
    loraAlpha: z.number().positive().default(16),
    loraDropout: probability.default(0.1),

    numExperts: z.number().int().min(2).max(256).default(8),
    topK: z.number().int().min(1).default(2),
    adapterDim: z.number().int().min(1).max(16384).default(512),
    adapterDropout: probability.default(0.1),
    adapterScale: z.number().positive().default(1),
    balanceCoefficient: z.number().min(0).default(0.01),

    batchSize: z.number().int().min(1).default(128),
    microBatchSize: z.number().int().min(1).default(1),
    seqLen: z.number().int().min(8).default(2048),
    packing: z.boolean().default(true),
    epochs: z.number().int().min(1).default(1),
    maxSteps: z.number().int().min(1).optional(),

    lr: z.number().positive().default(2e-4),
    schedule: z.enum(['constant', 'linear', 'cosine']).default('constant'),
    warmupRatio: z.number().min(0).max(1).default(0.03),
    optimizer: z.enum(['adamw', 'adamw8bit', 'paged_adamw', 'paged_adamw8bit']).default('adamw'),
    beta1: z.number().min(0).lt(1).default(0.9),
    beta2: z.number().min(0).lt(1).default(0.999),
    eps: z.number().positive().default(1e-8),
    weightDecay: z.number().min(0).default(0),
    maxGradNorm: z.number().min(0).default(0.3),
    recompute: z.boolean().default(false),
    /** With recompute: of how many layers, the first ones; all where it is left out. */
    recomputeLayers: z.number().int().min(1).optional(),

    seed: z.number().int().min(0).max(0xffffffff).default(0),
    evalSteps: z.number().int().min(0).default(0),
    saveSteps: z.number().int().min(0).default(0),
    keepCheckpoints: z.number().int().min(1).default(3),
    threads: z.number().int().min(0).default(0),
    device: z.enum(devices).default('cpu'),
  })
  .strict()
  .superRefine((config, context) => {
    const sparse = config.method === 'pesc' || config.method === 'upcycle';
    if (sparse && config.topK > config.numExperts)
      context.addIssue({
        code: 'custom',
        path: ['topK'],
        message: `topK is ${config.topK}, but there are only ${config.numExperts} experts; use topK of at most numExperts`,
      });
    if (config.recomputeLayers !== undefined && !config.recompute)
      context.addIssue({
        code: 'custom',
        path: ['recomputeLayers'],
        message: 'recomputeLayers says how many layers are recomputed, which recompute: true turns on',
      });
    if (config.device === 'cpu' && config.optimizer.startsWith('paged_'))
      context.addIssue({
        code: 'custom',
        path: ['optimizer'],
        message: `optimizer ${config.optimizer} keeps a GPU's optimizer state in the machine's own memory; with device: cpu use ${config.optimizer.replace('paged_', '')}, which has the same bits`,
      });
    if ((config.method === 'full' || config.method === 'upcycle') && config.baseDtype === 'nf4')
      context.addIssue({
        code: 'custom',
        path: ['baseDtype'],
        message: `method ${config.method} trains every weight, which needs baseDtype f32 or bf16, not nf4`,
      });
  });
export type RunConfig = z.infer<typeof runConfigSchema>;
export type RunConfigInput = z.input<typeof runConfigSchema>;
