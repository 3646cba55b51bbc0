/** What an ONNX export says of itself, in the metadata of its graph: enough to run it and to show what it is. */
import * as z from 'zod';

const count = z.number().int().positive();

/** What a graph is made from. */
export const onnxArchitectureSchema = z.object({
  architecture: z.string(),
  family: z.string(),
  hiddenSize: count,
  intermediateSize: count,
  numLayers: count.max(1000),
  numHeads: count,
  numKvHeads: count,
  headDim: count,
  vocabSize: count,
  /** Positions that the rotary table has. */
  contextLength: count,
  normEps: z.number().positive(),
  tiedEmbeddings: z.boolean(),
  qkvBias: z.boolean(),
  oBias: z.boolean(),
  mlpBias: z.boolean(),
  qkNorm: z.boolean(),
  /** Of each layer; 0: none. */
  windows: z.array(z.number().int().nonnegative()),
  /** Whether a layer's queries and keys are rotated by their positions. */
  rotates: z.array(z.boolean()),
  experts: z.object({ count, topK: count, adapterDim: count, adapterScale: z.number() }).nullable(),
  bosIds: z.array(z.number().int()),
  eosIds: z.array(z.number().int()),
});
export type OnnxArchitecture = z.infer<typeof onnxArchitectureSchema>;

export const onnxTypes = ['f32', 'f16', 'int4'] as const;
export type OnnxType = (typeof onnxTypes)[number];

export const onnxMetadataSchema = z.object({
  schema: z.literal('caravan-onnx-1'),
  type: z.enum(onnxTypes),
  architecture: onnxArchitectureSchema,
});
export type OnnxMetadata = z.infer<typeof onnxMetadataSchema>;

/** Its key among the model's metadata. */
export const metadataKey = 'caravan';

export const graphFile = 'model.onnx';
export const dataFile = 'model.onnx.data';

/** What ONNX Runtime may compute on. */
export const onnxProviderNames = ['cpu', 'webgpu', 'dml', 'coreml'] as const;
export type OnnxProviderName = (typeof onnxProviderNames)[number];

export const onnxProviderSchema = z.object({
  name: z.enum(onnxProviderNames),
  /** Why it cannot be used here; null where it computed. */
  missing: z.string().nullable(),
});
export type OnnxProvider = z.infer<typeof onnxProviderSchema>;
