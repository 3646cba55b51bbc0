/** A model of some 300,000 random weights with the demo's tokenizer: small enough for every test, whole enough to train. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Addon, OpenModelOptions, TrainOptions } from '../../core/engine/AddonTypes.ts';

export const demoTokenizer = fileURLToPath(new URL('../../demo/base/tokenizer.json', import.meta.url));

const vocabSize = 4096; // the demo tokenizer's
const hiddenSize = 32;
const intermediateSize = 48;
const numLayers = 2;
const numHeads = 4;
const numKvHeads = 2;
const headDim = 8;

/** Writes config.json, model.safetensors (f32) and tokenizer.json into `dir`, the same bytes for the same seed. */
export function writeTinyModel(dir: string, seed = 1): string {
  mkdirSync(dir, { recursive: true });
  copyFileSync(demoTokenizer, join(dir, 'tokenizer.json'));
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: vocabSize,
      hidden_size: hiddenSize,
      intermediate_size: intermediateSize,
      num_hidden_layers: numLayers,
      num_attention_heads: numHeads,
      num_key_value_heads: numKvHeads,
      head_dim: headDim,
      hidden_act: 'silu',
      max_position_embeddings: 256,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      tie_word_embeddings: true,
      bos_token_id: 0,
      eos_token_id: 1,
      torch_dtype: 'float32',
    }),
  );
  const normal = normals(seed);
  const tensors: Record<string, { shape: number[]; values: Float32Array }> = {};
  const add = (name: string, shape: number[], value: () => number) => {
    const count = shape.reduce((product, extent) => product * extent, 1);
    tensors[name] = { shape, values: Float32Array.from({ length: count }, value) };
  };
  const weight = () => 0.08 * normal();
  const one = () => 1;
  add('model.embed_tokens.weight', [vocabSize, hiddenSize], weight);
  add('model.norm.weight', [hiddenSize], one);
  for (let layer = 0; layer < numLayers; layer++) {
    const prefix = `model.layers.${layer}.`;
    add(`${prefix}input_layernorm.weight`, [hiddenSize], one);
    add(`${prefix}post_attention_layernorm.weight`, [hiddenSize], one);
    add(`${prefix}self_attn.q_proj.weight`, [numHeads * headDim, hiddenSize], weight);
    add(`${prefix}self_attn.k_proj.weight`, [numKvHeads * headDim, hiddenSize], weight);
    add(`${prefix}self_attn.v_proj.weight`, [numKvHeads * headDim, hiddenSize], weight);
    add(`${prefix}self_attn.o_proj.weight`, [hiddenSize, numHeads * headDim], weight);
    add(`${prefix}mlp.gate_proj.weight`, [intermediateSize, hiddenSize], weight);
    add(`${prefix}mlp.up_proj.weight`, [intermediateSize, hiddenSize], weight);
    add(`${prefix}mlp.down_proj.weight`, [hiddenSize, intermediateSize], weight);
  }
  writeSafetensors(join(dir, 'model.safetensors'), tensors);
  return dir;
}

/** Writes F32 tensors in the order of their names. */
export function writeSafetensors(
  path: string,
  tensors: Record<string, { shape: number[]; values: Float32Array }>,
): void {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let offset = 0;
  for (const name of Object.keys(tensors).sort()) {
    const { shape, values } = tensors[name]!;
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + values.byteLength] };
    parts.push(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
    offset += values.byteLength;
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (text.length % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, Buffer.from(text), ...parts]));
}

/** `rows` conversations of random ids, the second half of each a target; two sources in turn. */
export async function writeTinyShard(addon: Addon, path: string, rows = 24, seed = 1): Promise<string> {
  const uniform = uniforms(seed);
  const ids: number[] = [];
  const targets: number[] = [];
  const offsets = [0];
  for (let row = 0; row < rows; row++) {
    const length = 8 + Math.floor(uniform() * 24);
    for (let i = 0; i < length; i++) {
      ids.push(3 + Math.floor(uniform() * 200));
      targets.push(i * 2 >= length ? 1 : 0);
    }
    offsets.push(ids.length);
  }
  await addon.writeTokenShard(path, {
    ids: Int32Array.from(ids),
    offsets: Float64Array.from(offsets),
    targets: Uint8Array.from(targets),
    source: Int32Array.from({ length: rows }, (_, row) => row % 2),
    sources: ['left', 'right'],
    metadata: { split: 'train' },
  });
  return path;
}

/** A PESC run of two experts over the tiny model that takes milliseconds a step. */
export function tinyTraining(paths: {
  modelDir: string;
  trainShard: string;
  checkpointDir: string;
}): TrainOptions {
  return {
    ...paths,
    method: 'pesc',
    baseDtype: 'f32',
    doubleQuant: false,
    computeDtype: 'f32',
    trainDtype: 'f32',
    loraRank: 4,
    loraAlpha: 8,
    loraDropout: 0,
    numExperts: 2,
    topK: 1,
    adapterDim: 8,
    adapterDropout: 0,
    adapterScale: 1,
    balanceCoefficient: 0.01,
    batchSize: 4,
    microBatchSize: 2,
    seqLen: 64,
    packing: true,
    epochs: 1,
    lr: 1e-3,
    schedule: 'constant',
    warmupRatio: 0,
    optimizer: 'adamw',
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weightDecay: 0,
    maxGradNorm: 1,
    recompute: false,
    seed: 7,
    evalSteps: 0,
    saveSteps: 0,
    keepCheckpoints: 2,
    threads: 1,
    device: 'cpu',
    identity: { model: 'tiny' },
  };
}

export function tinyModelOptions(modelDir: string): OpenModelOptions {
  return { modelDir, baseDtype: 'f32', computeDtype: 'f32', threads: 1 };
}

/** mulberry32 */
export function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word = (word + Math.imul(word ^ (word >>> 7), word | 61)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 4294967296;
  };
}

function normals(seed: number): () => number {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
