import * as z from 'zod';
import { hubOriginSchema } from '../hub/hubReference.ts';

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
  // Absent where an earlier version added the model.
  ropeTheta: z.number().exactOptional(),
  ropeScaling: z.string().nullable().exactOptional(),
  slidingWindow: z.number().nullable().exactOptional(),
  attentionBias: z.boolean().exactOptional(),
  qkNorm: z.boolean().exactOptional(),
  normEps: z.number().exactOptional(),
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

/** What was held to be true of a model's tokenizer and template; `passed` null: there is nothing to check it with. */
export const modelCheckSchema = z.object({
  name: z.enum(['round-trip', 'plain-text', 'template', 'stop']),
  passed: z.boolean().nullable(),
  /** What was seen, one sentence. */
  found: z.string(),
});
export type ModelCheck = z.infer<typeof modelCheckSchema>;

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
  /** Where it was downloaded from. */
  hub: hubOriginSchema.exactOptional(),
  addedAt: z.number(),
  /** Where a copy in the home was made from; absent: the model is linked in its place. */
  copiedFrom: z.string().exactOptional(),
  /** Made when it was added; absent for one that an earlier version added. */
  checks: z.array(modelCheckSchema).exactOptional(),
  /** Out of the library until it is restored. */
  trashedAt: z.number().exactOptional(),
});
export type Model = z.infer<typeof modelSchema>;

/** What a tokenizer is made of: its special tokens, which of them end an answer, and the template. */
export const tokenizerFactsSchema = z.object({
  path: z.string(),
  vocabSize: z.number().int(),
  /** What its own post-processor adds. */
  addsBos: z.boolean(),
  addsEos: z.boolean(),
  specials: z.array(
    z.object({
      id: z.number().int(),
      text: z.string(),
      roles: z.array(z.enum(['bos', 'eos', 'stop'])),
    }),
  ),
  /** Jinja, as the model brings it. */
  chatTemplate: z.string().nullable(),
});
export type TokenizerFacts = z.infer<typeof tokenizerFactsSchema>;

/** A model reference: a name in the library, `run:<id or name>` (its last checkpoint), or a folder. */
export const modelRefSchema = z.string().min(1);
