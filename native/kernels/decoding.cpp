#include "kernels/decoding.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(cache_append)
CARAVAN_TWINS(attention_decode_each)
CARAVAN_TWINS(greedy_choice)

void cache_append(const Exec& exec, const CacheView* caches, const int32_t* positions, ConstPtr k, ConstPtr v,
                  int64_t n, int64_t row_size) {
  CARAVAN_DISPATCH(cache_append, exec, caches, positions, k, v, n, row_size);
}

void attention_decode_each(const Exec& exec, Ptr out, ConstPtr q, const CacheView* caches, const int32_t* positions,
                           int64_t n, int64_t most, const AttentionShape& shape) {
  CARAVAN_DISPATCH(attention_decode_each, exec, out, q, caches, positions, n, most, shape);
}

void greedy_choice(const Exec& exec, int32_t* ids, double* logprobs, const float* logits, int64_t n, int64_t v) {
  CARAVAN_DISPATCH(greedy_choice, exec, ids, logprobs, logits, n, v);
}

}  // namespace caravan
