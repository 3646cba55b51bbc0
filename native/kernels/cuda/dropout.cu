#include "kernels/dropout.h"

#include <cmath>

#include "kernels/cuda/rows.cuh"

namespace caravan::cuda {

namespace {

constexpr int block_threads = 128;

/// One thread a word: eight Philox groups.
__global__ void __launch_bounds__(block_threads)
    kept_kernel(uint32_t* kept, const DropoutMask mask, uint32_t threshold, int64_t words, int words_per_row, int c) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (at >= words) return;
  const int64_t row = at / words_per_row;
  const int first = static_cast<int>(at - row * words_per_row) * 32;
  const auto conversation = static_cast<uint32_t>(mask.conversation[row]);
  const auto position = static_cast<uint32_t>(mask.position[row]);
  const uint32_t place = mask.layer * 16 + static_cast<uint32_t>(mask.site);
  uint32_t bits = 0;
#pragma unroll
  for (int group = 0; group < 8; ++group) {
    const Philox4 random =
        philox(mask.seed, mask.step, conversation, position, place, static_cast<uint32_t>(first / 4 + group));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (random.word[j] >= threshold) bits |= 1u << kept_bit(4 * group + j);
    }
  }
  const int left = c - first;
  if (left < 32) {
    for (int j = left; j < 32; ++j) bits &= ~(1u << kept_bit(j));
  }
  kept[at] = bits;
}

template <typename T, bool accumulate>
struct Apply {
  T* y;
  const T* x;
  const uint32_t* kept;
  float scale;
  int64_t c;

  template <int N>
  __device__ void at(unsigned row, int64_t column) const {
    const uint32_t bits = kept[row * kept_words(c) + column / 32] >> column % 32 / 2;
    const int64_t i = row * c + column;
    float v[N], before[N];
    load(v, x + i);
    if constexpr (accumulate) load(before, y + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      // A single element's column may be odd; a pack begins at an even one.
      const int bit = N == 1 ? static_cast<int>(column % 2) * 16 : kept_bit(j);
      // Product and sum are rounded apart, as on the CPU.
      v[j] = (bits >> bit & 1) != 0 ? __fmul_rn(v[j], scale) : 0.0f;
      if constexpr (accumulate) v[j] = __fadd_rn(before[j], v[j]);
    }
    store(y + i, v);
  }
};

}  // namespace

void dropout_kept(const Exec& exec, uint32_t* kept, const DropoutMask& mask, int64_t n, int64_t c) {
  if (n * c == 0) return;
  const int64_t words = n * kept_words(c);
  const auto threshold = static_cast<uint32_t>(std::floor(static_cast<double>(mask.p) * 4294967296.0));
  kept_kernel<<<blocks_for(words, block_threads), block_threads, 0, stream_of(exec)>>>(
      kept, mask, threshold, words, static_cast<int>(kept_words(c)), static_cast<int>(c));
  check_launch("dropout_kept");
}

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const uint32_t* kept, float scale, int64_t n, int64_t c,
                   bool accumulate) {
  dispatch(y.dtype, [&]<typename T>() {
    const bool vector = aligned16(y.as<T>(), x.as<T>());
    if (accumulate) {
      each_row(exec, Apply<T, true>{y.as<T>(), x.as<T>(), kept, scale, c}, n, c, vector, "dropout_apply");
    } else {
      each_row(exec, Apply<T, false>{y.as<T>(), x.as<T>(), kept, scale, c}, n, c, vector, "dropout_apply");
    }
  });
}

}  // namespace caravan::cuda
