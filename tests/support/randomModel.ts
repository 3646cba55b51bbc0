import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Small enough that a step takes milliseconds. */
const small = { hidden: 32, intermediate: 64, layers: 2, heads: 4, kvHeads: 2, headDim: 8, positions: 256 };

export interface RandomModelOptions extends Partial<typeof small> {
  /** Keys of config.json over the embedded model's. */
  config?: Record<string, unknown>;
  /** Of queries, keys and values. */
  biases?: boolean;
  /** RMSNorm of queries and keys, head by head. */
  headNorms?: boolean;
  /** A head that is not the embedding. */
  untied?: boolean;
}

/**
 * Writes a tiny model (f32; a Llama unless told otherwise) of seeded weights with the embedded model's tokenizer: a model
 * folder like any other.
 * @returns the folder
 */
export function writeRandomModel(dir: string, options: RandomModelOptions = {}): string {
  const base = fileURLToPath(new URL('../../demo/base', import.meta.url));
  mkdirSync(dir, { recursive: true });
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
    copyFileSync(join(base, file), join(dir, file));
  const config = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8')) as Record<string, unknown>;
  const { hidden, intermediate, layers, heads, kvHeads, headDim, positions } = { ...small, ...options };
  const { biases = false, headNorms = false, untied = false } = options;
  const vocabulary = config['vocab_size'] as number;
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify({
      ...config,
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      head_dim: headDim,
      max_position_embeddings: positions,
      tie_word_embeddings: !untied,
      ...options.config,
    }),
  );
  const tensors: [name: string, shape: number[]][] = [['model.embed_tokens.weight', [vocabulary, hidden]]];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...size: number[]) => tensors.push([`model.layers.${layer}.${name}`, size]);
    add('input_layernorm.weight', hidden);
    for (const [name, rows] of [
      ['q', heads],
      ['k', kvHeads],
      ['v', kvHeads],
    ] as const) {
      add(`self_attn.${name}_proj.weight`, rows * headDim, hidden);
      if (biases) add(`self_attn.${name}_proj.bias`, rows * headDim);
    }
    if (headNorms) for (const name of ['q', 'k']) add(`self_attn.${name}_norm.weight`, headDim);
    add('self_attn.o_proj.weight', hidden, heads * headDim);
    add('post_attention_layernorm.weight', hidden);
    add('mlp.gate_proj.weight', intermediate, hidden);
    add('mlp.up_proj.weight', intermediate, hidden);
    add('mlp.down_proj.weight', hidden, intermediate);
  }
  tensors.push(['model.norm.weight', [hidden]]);
  if (untied) tensors.push(['lm_head.weight', [vocabulary, hidden]]);
  writeFileSync(join(dir, 'model.safetensors'), safetensors(tensors));
  return dir;
}

function safetensors(tensors: [name: string, shape: number[]][]): Buffer {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let at = 0;
  let state = 1;
  // A linear congruence (Numerical Recipes' constants): weights need to differ, not to be random.
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  for (const [name, size] of tensors) {
    const count = size.reduce((a, b) => a * b, 1);
    const norm = size.length === 1 && !name.endsWith('bias');
    const values = Float32Array.from({ length: count }, () => (norm ? 1 : next() * 0.2));
    parts.push(Buffer.from(values.buffer));
    header[name] = { dtype: 'F32', shape: size, data_offsets: [at, at + count * 4] };
    at += count * 4;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...parts]);
}
