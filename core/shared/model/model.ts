import * as z from 'zod';

/** What a model's files say of it. */
export const modelSummarySchema = z.object({
  architecture: z.string(),
  family: z.string(),
  parameters: z.object({
    embedding: z.number(),
    attention: z.number(),
    mlp: z.number(),
    norms: z.number(),
    head: z.number(),
    total: z.number(),
  }),
  hiddenSize: z.number(),
  intermediateSize: z.number(),
  numLayers: z.number(),
  numHeads: z.number(),
  numKvHeads: z.number(),
  headDim: z.number(),
  vocabSize: z.number(),
  maxPositions: z.number(),
  tiedEmbeddings: z.boolean(),
  /** Of a sparse model; `adapterDim` is null where its experts are whole FFNs. `parameters` includes the routers. */
  experts: z
    .object({
      count: z.number(),
      topK: z.number(),
      adapterDim: z.number().nullable(),
      adapterScale: z.number(),
      parameters: z.number(),
    })
    .exactOptional(),
  storedDtypes: z.array(z.string()),
  fileBytes: z.number(),
});

export const modelSchema = z.object({
  id: z.string(),
  name: z.string(),
  dir: z.string(),
  ...modelSummarySchema.shape,
  hasChatTemplate: z.boolean(),
  bosToken: z.string().nullable(),
  eosToken: z.string().nullable(),
  /** SHA-256 over all tensors; null until computed. */
  identity: z.string().nullable(),
  addedAt: z.number(),
});
export type Model = z.infer<typeof modelSchema>;

/** A model reference: a name in the library, `run:<id or name>` (its last checkpoint), or a folder. */
export const modelRefSchema = z.string().min(1);
