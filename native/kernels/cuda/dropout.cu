#include "kernels/dropout.h"

#include <cmath>

#include "kernels/activation.h"
#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

namespace {

constexpr int block_threads = 128;

/// What each word is compared with and what is left is multiplied by.
struct Keep {
  uint32_t threshold;
  float scale;
};

/// One thread a pack of one row: two Philox groups.
template <typename T, bool accumulate, bool vector>
__global__ void __launch_bounds__(block_threads)
    dropout_kernel(T* y, const T* x, const DropoutMask mask, Keep keep, int c, unsigned blocks_per_row) {
  const unsigned row = blockIdx.x / blocks_per_row;
  const int first = static_cast<int>((blockIdx.x % blocks_per_row) * block_threads + threadIdx.x) * pack;
  if (first >= c) return;
  const int64_t at = static_cast<int64_t>(row) * c + first;
  const auto conversation = static_cast<uint32_t>(mask.conversation[row]);
  const auto position = static_cast<uint32_t>(mask.position[row]);
  const uint32_t place = mask.layer * 16 + static_cast<uint32_t>(mask.site);
  float v[pack] = {}, before[pack] = {};
  if constexpr (vector) {
    load(v, x + at);
    if constexpr (accumulate) load(before, y + at);
  } else {
#pragma unroll
    for (int j = 0; j < pack; ++j) {
      if (first + j >= c) continue;
      v[j] = static_cast<float>(x[at + j]);
      if constexpr (accumulate) before[j] = static_cast<float>(y[at + j]);
    }
  }
#pragma unroll
  for (int group = 0; group < pack / 4; ++group) {
    const Philox4 words =
        philox(mask.seed, mask.step, conversation, position, place, static_cast<uint32_t>(first / 4 + group));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float& value = v[group * 4 + j];
      // Product and sum are rounded apart, as on the CPU.
      value = words.word[j] >= keep.threshold ? __fmul_rn(value, keep.scale) : 0.0f;
      if constexpr (accumulate) value = __fadd_rn(before[group * 4 + j], value);
    }
  }
  if constexpr (vector) {
    store(y + at, v);
  } else {
#pragma unroll
    for (int j = 0; j < pack; ++j) {
      if (first + j < c) y[at + j] = rounded<T>(v[j]);
    }
  }
}

}  // namespace

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c,
                   bool accumulate) {
  if (n * c == 0) return;
  if (mask.p == 0.0f) {
    if (accumulate) {
      caravan::add_inplace(exec, y, x, n * c);
    } else {
      caravan::convert(exec, y, x, n * c);
    }
    return;
  }
  const Keep keep{static_cast<uint32_t>(std::floor(static_cast<double>(mask.p) * 4294967296.0)),
                  1.0f / (1.0f - mask.p)};
  const unsigned blocks_per_row = blocks_for(c, int64_t{block_threads} * pack);
  const unsigned blocks = blocks_per_row * static_cast<unsigned>(n);
  dispatch(y.dtype, [&]<typename T>() {
    const auto launch = [&]<bool accumulates, bool vector>() {
      dropout_kernel<T, accumulates, vector><<<blocks, block_threads, 0, stream_of(exec)>>>(
          y.as<T>(), x.as<T>(), mask, keep, static_cast<int>(c), blocks_per_row);
    };
    if (c % pack == 0 && aligned16(y.as<T>(), x.as<T>())) {
      if (accumulate) {
        launch.template operator()<true, true>();
      } else {
        launch.template operator()<false, true>();
      }
    } else if (accumulate) {
      launch.template operator()<true, false>();
    } else {
      launch.template operator()<false, false>();
    }
  });
  check_launch("dropout_apply");
}

}  // namespace caravan::cuda
