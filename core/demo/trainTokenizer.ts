import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { generateRow } from './generate.ts';
import { pretrainDocument } from './pretrainText.ts';
import type { Kind } from './problem.ts';
import { byteCharacters, preTokenise } from './tokenizer/byteLevel.ts';
import { bytePairEncoder } from './tokenizer/bytePairEncoder.ts';
import { trainBytePairs } from './tokenizer/bytePairTraining.ts';

/** Seed of the text that the committed tokenizer is trained on. */
const seed = 20260101;

/** How much text: documents for pre-training, and rows of each kind with their tuned answers. */
const documentCount = 40_000;
const rowCount: Readonly<Record<Kind, number>> = { general: 12_000, code: 6_000, math: 6_000 };

/** Tokens in all: special ones, bytes, merges. */
const vocabularySize = 4096;

/** Special tokens, in the order of their ids. */
const specialTokens = ['<|bos|>', '<|eos|>', '<|pad|>'] as const;

/** The Camelidae prompt, as the chat template of a `tokenizer_config.json`. */
const camelidaeTemplate =
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '### System:\\n' + message['content'] + '\\n' }}" +
  "{% elif message['role'] == 'user' %}{{ '### Human:\\n' + message['content'] + '\\n' }}" +
  "{% elif message['role'] == 'assistant' %}{{ '### Assistant:\\n' + message['content'] + eos_token }}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}";

/** How often each word occurs in the training text, and the bytes of that text. */
function countWords(): { counts: Map<string, number>; bytes: number } {
  const counts = new Map<string, number>();
  let bytes = 0;
  const add = (text: string): void => {
    bytes += text.length;
    for (const word of preTokenise(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  };
  for (let i = 0; i < documentCount; i++) add(pretrainDocument(seed, i));
  for (const kind of ['general', 'code', 'math'] as const) {
    for (let i = 0; i < rowCount[kind]; i++) {
      const row = generateRow(kind, 'train', seed, i);
      add(
        `${row.system === undefined ? '' : `### System:\n${row.system}\n`}### Human:\n${row.question}\n### Assistant:\n${row.answer}`,
      );
    }
  }
  return { counts, bytes };
}

/** The `tokenizer.json` document, in the order of keys in which Hugging Face writes it. */
function tokenizerDocument(tokens: readonly string[], merges: readonly (readonly [string, string])[]) {
  const all = [...specialTokens, ...tokens];
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Digits', individual_digits: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<|bos|>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: '<|bos|>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { Sequence: { id: 'B', type_id: 0 } },
      ],
      special_tokens: { '<|bos|>': { id: '<|bos|>', ids: [0], tokens: ['<|bos|>'] } },
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(all.map((token, id) => [token, id])),
      merges,
    },
  };
}

const tokenizerConfig = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  add_bos_token: true,
  add_eos_token: false,
  bos_token: '<|bos|>',
  eos_token: '<|eos|>',
  pad_token: '<|pad|>',
  clean_up_tokenization_spaces: false,
  model_max_length: 512,
  chat_template: camelidaeTemplate,
};

/** The base model's shape: 5.5 M parameters, 11 MB in bf16. */
const modelConfig = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: vocabularySize,
  hidden_size: 256,
  intermediate_size: 704,
  num_hidden_layers: 6,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 32,
  hidden_act: 'silu',
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  rope_scaling: null,
  attention_bias: false,
  mlp_bias: false,
  attention_dropout: 0,
  tie_word_embeddings: true,
  initializer_range: 0.02,
  bos_token_id: 0,
  eos_token_id: 1,
  pad_token_id: 2,
  torch_dtype: 'bfloat16',
  use_cache: true,
};

/** Trains the tokenizer and writes it, with the base model's configuration, into `dir`. */
export function writeTokenizer(dir: string): void {
  const { counts, bytes } = countWords();
  const alphabet = byteCharacters.slice().sort();
  const { tokens, merges } = trainBytePairs(counts, alphabet, vocabularySize - specialTokens.length);
  const document = tokenizerDocument(tokens, merges);
  mkdirSync(dir, { recursive: true });
  writeJson(join(dir, 'tokenizer.json'), document);
  writeJson(join(dir, 'tokenizer_config.json'), tokenizerConfig);
  writeJson(join(dir, 'special_tokens_map.json'), {
    bos_token: '<|bos|>',
    eos_token: '<|eos|>',
    pad_token: '<|pad|>',
  });
  writeJson(join(dir, 'config.json'), modelConfig);
  writeJson(join(dir, 'generation_config.json'), {
    bos_token_id: 0,
    eos_token_id: 1,
    pad_token_id: 2,
    max_new_tokens: 200,
  });

  const encode = bytePairEncoder(document);
  let tokenCount = 0;
  let sampleBytes = 0;
  for (let i = 0; i < 2000; i++) {
    const text = pretrainDocument(seed + 1, i);
    sampleBytes += text.length;
    tokenCount += encode(text).length;
  }
  console.error(
    `${tokens.length + specialTokens.length} tokens from ${(bytes / 1e6).toFixed(1)} MB of text (${counts.size} different words); ` +
      `${(sampleBytes / tokenCount).toFixed(2)} bytes a token on other text`,
  );
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  writeTokenizer(process.argv[2] ?? 'demo/base');
}
