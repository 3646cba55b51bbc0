// Causal grouped-query attention over packed sequences, softmax in fp32 with the log-sum-exp kept for the backward pass
// (Dao, arXiv 2307.08691).
#pragma once

#include "kernels/exec.h"

namespace caravan {

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;  // sliding window: a query sees keys (p - window, p]; 0: all before it
  float scale = 0.0f;  // 1 / sqrt(head_dim)
};

/// Training and prompts: `cu_seqlens` (S + 1, cu_seqlens[0] = 0, last = N) cuts the N tokens into sequences that do not
/// see each other. out, q (N, heads, head_dim); k, v (N, kv_heads, head_dim); lse (heads, N) f32, may be null.
void attention_forward(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                       const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape);

/// dq, dk, dv are overwritten. Each is summed in an order that depends on the shapes alone.
void attention_backward(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                        const AttentionShape& shape);

/// Decoding against a cache: query i (of N new tokens of ONE sequence, at positions past .. past + N - 1) sees cache rows
/// 0 .. past + i. q, out (N, heads, head_dim); k_cache, v_cache (capacity, kv_heads, head_dim) already hold the new rows.
void attention_decode(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                      int64_t n, const AttentionShape& shape);

}  // namespace caravan
