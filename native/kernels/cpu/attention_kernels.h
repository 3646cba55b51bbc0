// Attention in blocks of queries and keys, with a running maximum and sum for the softmax (Dao et al., arXiv 2205.14135
// and 2307.08691). Blocks count from the start of a sequence, so a token's result depends on its sequence alone.
#pragma once

#include <cstdint>

namespace caravan::cpu {

constexpr int64_t query_block = 48;  // a multiple of every micro-kernel's rows
constexpr int64_t key_block = 64;    // a multiple of every panel's columns

/// One sequence: query i stands at key position `past` + i.
struct AttentionSequence {
  bool bf16 = false;        // type of q, k, v, out and of their gradients
  const void* q = nullptr;  // (queries, heads, head_dim)
  const void* k = nullptr;  // (keys, kv_heads, head_dim)
  const void* v = nullptr;
  void* out = nullptr;   // (queries, heads, head_dim)
  float* lse = nullptr;  // (heads, lse_stride) or null
  int64_t lse_stride = 0;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t past = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;
  float scale = 0.0f;

  int64_t group() const { return heads / kv_heads; }
};

struct AttentionGradients {
  const void* dout = nullptr;  // (queries, heads, head_dim)
  const void* out = nullptr;
  const float* lse = nullptr;  // (heads, lse_stride) at the sequence
  void* dq = nullptr;          // (queries, heads, head_dim)
  float* dk = nullptr;         // (keys, heads, head_dim) f32: of each query head apart
  float* dv = nullptr;
};

constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 31) / 32 * 32; }
constexpr int64_t key_blocks(int64_t keys) { return (keys + key_block - 1) / key_block; }
/// Floats of one packed block of keys and values of one key head.
constexpr int64_t packed_block_floats(int64_t head_dim) { return key_block * (head_dim + padded_head_dim(head_dim)); }
constexpr int64_t forward_scratch_floats(int64_t head_dim) {
  return query_block * (key_block + head_dim + padded_head_dim(head_dim) + 2) + key_block * head_dim + 256;
}
constexpr int64_t backward_scratch_floats(int64_t queries, int64_t head_dim) {
  return (queries + query_block) * (3 * padded_head_dim(head_dim) + 2 * head_dim + 2) +
         key_block * (3 * head_dim + 5 * padded_head_dim(head_dim)) + 4 * query_block * key_block + 512;
}

/// Keys of one call of `decode_chunk`, so that long caches are shared by the threads.
constexpr int64_t decode_chunk_keys = 128;
constexpr int64_t decode_max_queries = 4;
/// A partial result of one (query, head): maximum, sum of exponentials, then head_dim weighted sums of values.
constexpr int64_t decode_partial_floats(int64_t head_dim) { return 2 + head_dim; }

/// What one instruction set brings. `packed`: key_blocks blocks of one key head.
struct AttentionKernels {
  void (*pack_keys)(const AttentionSequence& s, int64_t kv_head, int64_t block, float* packed, float* scratch);
  void (*forward_block)(const AttentionSequence& s, int64_t head, int64_t block, const float* packed, float* scratch);
  void (*backward_head)(const AttentionSequence& s, const AttentionGradients& g, int64_t head, float* scratch);
  /// All queries of the heads of one key head against keys [first, last); partial (queries, group, 2 + head_dim).
  void (*decode_chunk)(const AttentionSequence& s, int64_t kv_head, int64_t first, int64_t last, float* partial);
};

const AttentionKernels& attention_kernels();

}  // namespace caravan::cpu
