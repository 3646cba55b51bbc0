// Where the sums of a GEMV kernel go.
#pragma once

#include <cuda_bf16.h>

#include "kernels/dtype.h"

namespace caravan::cuda {

/// y (n, rows) = scale * sum (+ bias) (+ y).
struct GemvOutput {
  void* y = nullptr;
  const float* bias = nullptr;  // (rows) or null
  int64_t rows = 0;
  float scale = 1.0f;
  bool accumulate = false;
  bool is_bf16 = false;

  __device__ void store(int64_t x_row, int64_t row, float sum) const {
    const float value = scale * sum + (bias == nullptr ? 0.0f : bias[row]);
    const int64_t at = x_row * rows + row;
    if (is_bf16) {
      __nv_bfloat16* const to = static_cast<__nv_bfloat16*>(y) + at;
      *to = __float2bfloat16_rn(accumulate ? value + __bfloat162float(*to) : value);
    } else {
      float* const to = static_cast<float*>(y) + at;
      *to = accumulate ? value + *to : value;
    }
  }
};

}  // namespace caravan::cuda
