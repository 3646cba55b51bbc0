/** What an export is, as export.json beside it says and as clients hear of it. */
import * as z from 'zod';
import { contractErrorSchema } from '../contract/errors.ts';

export const exportLayouts = [
  'peft',
  'adapter',
  'merged',
  'camelidae',
  'qwen2idae',
  'sparsetral',
  'mixtral',
  'gguf',
  'onnx',
] as const;
export type ExportLayout = (typeof exportLayouts)[number];

export const exportTypes = ['f32', 'bf16', 'f16', 'q8_0', 'q4_0', 'int4'] as const;
export type ExportType = (typeof exportTypes)[number];

/** What each is for; the types it can be written in, the usual first; none: it keeps what was trained in. */
export const exportFormats: Record<
  ExportLayout,
  { title: string; purpose: string; types: readonly ExportType[] }
> = {
  peft: {
    title: 'PEFT LoRA',
    purpose: 'The LoRA alone, for PEFT and transformers over the same base model. A few megabytes.',
    types: [],
  },
  adapter: {
    title: 'Caravan adapter',
    purpose:
      'LoRA, adapter experts and routers in a small folder that Caravan loads over the same base model.',
    types: [],
  },
  merged: {
    title: 'Merged Hugging Face folder',
    purpose: 'A dense model on its own, for transformers, vLLM and everything that reads safetensors.',
    types: ['bf16', 'f16', 'f32'],
  },
  camelidae: {
    title: 'Camelidae',
    purpose: 'The published layout of hywu/Camelidae-8x7B: experts and all, with trust_remote_code.',
    types: ['bf16', 'f16', 'f32'],
  },
  qwen2idae: {
    title: 'Qwen2idae',
    purpose: 'The published layout of hywu/Qwen2idae-16x14B-v1.0, for crafted Qwen2 models.',
    types: ['bf16', 'f16', 'f32'],
  },
  sparsetral: {
    title: 'sparsetral',
    purpose: 'The published layout of serpdotai/sparsetral-16x7B-v2, for crafted Mistral and Llama models.',
    types: ['bf16', 'f16', 'f32'],
  },
  mixtral: {
    title: 'Mixtral',
    purpose: "transformers' Mixtral, which every runtime loads: for models whose experts are whole FFNs.",
    types: ['bf16', 'f16', 'f32'],
  },
  gguf: {
    title: 'GGUF',
    purpose: 'One file with tokenizer and template, for llama.cpp, Ollama and LM Studio.',
    types: ['f16', 'f32', 'q8_0', 'q4_0'],
  },
  onnx: {
    title: 'ONNX',
    purpose:
      'A graph for ONNX Runtime, experts and all, which Caravan itself talks to: int4 is the fastest on a CPU.',
    types: ['f16', 'f32', 'int4'],
  },
};

/** What LoRA is merged into: the base as the run kept it (NF4: dequantised), or as its files have it. */
export const mergeBases = ['trained', 'original'] as const;
export type MergeBase = (typeof mergeBases)[number];

/** Layouts that hold what was trained alone, in the type it was trained in. */
export function isAdapterLayout(layout: ExportLayout): boolean {
  return layout === 'peft' || layout === 'adapter';
}

/** What must hold of a tensor in an exported file: equal after the cast, the merge to its rounding, half a step of its block. */
export const tensorRules = ['copied', 'merged', 'quantised'] as const;

/** Infinite and NaN travel as null. */
const real = z.number().nullable();

const logitComparisonSchema = z.object({
  tokens: z.number(),
  maxDifference: real,
  meanDifference: real,
  kl: real,
  maxKl: real,
  sameChoice: z.number(),
  decided: z.number(),
  decidedOtherwise: z.number(),
});
export type LogitComparisonRecord = z.infer<typeof logitComparisonSchema>;

/** The parity gate's findings; see ExportParity of core/engine/AddonTypes.ts. */
export const paritySchema = z.object({
  passed: z.boolean(),
  limit: z.string(),
  reference: z.enum(['trained', 'original_base', 'dequantised']),
  logits: logitComparisonSchema,
  loss: logitComparisonSchema.nullable(),
  tensors: z.object({
    tensors: z.number(),
    elements: z.number(),
    copied: z.number(),
    merged: z.number(),
    quantised: z.number(),
    maxDifference: real,
    maxTensor: z.string(),
    wrong: z.array(z.string()),
    /** Absent in lists, and in reports of earlier versions. */
    each: z
      .array(
        z.object({
          name: z.string(),
          rule: z.enum(tensorRules),
          elements: z.number(),
          /** Largest |file - checkpoint|, before any cast. */
          difference: real,
          /** Elements that the rule does not allow. */
          wrong: z.number(),
        }),
      )
      .exactOptional(),
  }),
  /** Prompts that the export's own tokenizer and template turn into other ids than those trained with. */
  prompts: z.object({ checked: z.number(), different: z.number() }),
  unusedExperts: z.array(z.object({ layer: z.number(), expert: z.number() })),
});
export type Parity = z.infer<typeof paritySchema>;

/** What a format would take, or why it is refused and what to use instead. */
export const exportOfferSchema = z.object({
  layout: z.enum(exportLayouts),
  type: z.enum(exportTypes).nullable(),
  bytes: z.number().nullable(),
  tensors: z.number().nullable(),
  refusal: contractErrorSchema.nullable(),
});
export type ExportOffer = z.infer<typeof exportOfferSchema>;

/** export.json: a function of the run and of what was asked, so that the same export again gives the same bytes. */
export const exportRecordSchema = z.object({
  schema: z.literal('caravan-export-1'),
  /** Null where a model was exported as it came. */
  run: z.object({ id: z.string(), name: z.string(), method: z.string(), step: z.number() }).nullable(),
  base: z.object({ name: z.string(), identity: z.string() }),
  layout: z.enum(exportLayouts),
  /** Null for adapters, which keep the type they were trained in. */
  type: z.enum(exportTypes).nullable(),
  /** Null where nothing is merged. */
  mergeInto: z.enum(mergeBases).nullable(),
  template: z.enum(['camelidae', 'model']),
  files: z.array(z.object({ name: z.string(), bytes: z.number() })),
  notes: z.array(z.string()),
  parity: paritySchema,
});
export type ExportRecord = z.infer<typeof exportRecordSchema>;

/** One that this home made. */
export const exportSchema = exportRecordSchema.extend({
  id: z.string(),
  dir: z.string(),
  createdAt: z.number(),
});
export type Export = z.infer<typeof exportSchema>;
