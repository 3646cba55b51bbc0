#include "kernels/decoding.h"

#include <cmath>
#include <cstring>

namespace caravan::cpu {

extern decltype(caravan::attention_decode) attention_decode;

void cache_append(const Exec&, const CacheView* caches, const int32_t* positions, ConstPtr k, ConstPtr v, int64_t n,
                  int64_t row_size) {
  const size_t bytes = static_cast<size_t>(row_size) * size_of(k.dtype);
  for (int64_t i = 0; i < n; ++i) {
    const size_t at = static_cast<size_t>(positions[i]) * bytes;
    std::memcpy(static_cast<char*>(caches[i].keys) + at, k.at(i * row_size).data, bytes);
    std::memcpy(static_cast<char*>(caches[i].values) + at, v.at(i * row_size).data, bytes);
  }
}

void attention_decode_each(const Exec& exec, Ptr out, ConstPtr q, const CacheView* caches, const int32_t* positions,
                           int64_t n, int64_t, const AttentionShape& shape) {
  const int64_t row_size = shape.heads * shape.head_dim;
  for (int64_t i = 0; i < n; ++i) {
    cpu::attention_decode(exec, out.at(i * row_size), q.at(i * row_size), {caches[i].keys, q.dtype},
                          {caches[i].values, q.dtype}, positions[i], 1, shape);
  }
}

void greedy_choice(const Exec& exec, int32_t* ids, double* logprobs, const float* logits, int64_t n, int64_t v) {
  parallel_for(exec, n, 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* const x = logits + row * v;
      int64_t best = 0;
      for (int64_t i = 1; i < v; ++i) {
        if (x[i] > x[best]) best = i;
      }
      double sum = 0.0;
      for (int64_t i = 0; i < v; ++i) sum += std::exp(static_cast<double>(x[i]) - static_cast<double>(x[best]));
      ids[row] = static_cast<int32_t>(best);
      logprobs[row] = -std::log(sum);
    }
  });
}

}  // namespace caravan::cpu
