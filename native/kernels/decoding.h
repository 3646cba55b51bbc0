// One new token of each of several conversations: what is read at the same position of no two caches. Every row is computed
// as if it were alone, so its bits do not depend on what stands beside it.
#pragma once

#include "kernels/attention.h"

namespace caravan {

/// Keys and values of one conversation in one layer, (capacity, kv_heads, head_dim) each.
struct CacheView {
  void* keys = nullptr;
  void* values = nullptr;
};

/// Row positions[i] of cache i becomes row i of k and v (N, row_size), whose type the caches have. `caches` and `positions`
/// (N) are memory of the device.
void cache_append(const Exec& exec, const CacheView* caches, const int32_t* positions, ConstPtr k, ConstPtr v,
                  int64_t n, int64_t row_size);

/// Query i, at positions[i], sees rows 0 .. positions[i] of cache i. q, out (N, heads, head_dim). Every position is below
/// `most`, which the result does not depend on. Row i is what attention_decode gives for it alone.
void attention_decode_each(const Exec& exec, Ptr out, ConstPtr q, const CacheView* caches, const int32_t* positions,
                           int64_t n, int64_t most, const AttentionShape& shape);

/// Of each row of logits (N, V): the first of the largest, and its log-probability in fp64; NaN where the row holds a NaN
/// or its largest is infinite.
void greedy_choice(const Exec& exec, int32_t* ids, double* logprobs, const float* logits, int64_t n, int64_t v);

}  // namespace caravan
