#include "kernels/rope.h"

#include <algorithm>

namespace caravan::cpu {
namespace {

/// (a, b) -> (a cos - b sin, b cos + a sin) for the pairs (i, i + half) of one head.
template <typename T>
void rotate_head(T* x, const float* cos, const float* sin, int64_t half, float direction) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    const float s = direction * sin[i];
    x[i] = static_cast<T>(a * cos[i] - b * s);
    x[i + half] = static_cast<T>(b * cos[i] + a * s);
  }
}

}  // namespace

void rope_apply(const Exec& exec, Ptr x, const float* cos, const float* sin, const int32_t* positions, int64_t n,
                int64_t heads, int64_t head_dim, bool inverse) {
  const int64_t half = head_dim / 2;
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, heads * head_dim));
  dispatch(x.dtype, [&]<typename T>() {
    parallel_for(exec, n, grain, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t angle = positions[row] * half;
        for (int64_t head = 0; head < heads; ++head) {
          rotate_head(x.as<T>() + (row * heads + head) * head_dim, cos + angle, sin + angle, half,
                      inverse ? -1.0f : 1.0f);
        }
      }
    });
  });
}

}  // namespace caravan::cpu
