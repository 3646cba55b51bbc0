// bitsandbytes' dynamic 8-bit maps on the device.
#pragma once

#include <array>

#include "kernels/nf4.h"

namespace caravan::cuda {

/// One of nf4.h's maps as a kernel's argument.
struct DynamicCode {
  float value[256];

  explicit DynamicCode(const std::array<float, 256>& code) {
    for (size_t i = 0; i < code.size(); ++i) value[i] = code[i];
  }
};

/// quantize_dynamic of nf4.h, step by step.
__device__ __forceinline__ int nearest_dynamic_code(const float* code, float value) {
  int pivot = 127, upper = 255, lower = 0;
#pragma unroll
  for (int step = 64; step > 0; step /= 2) {
    if (value > code[pivot]) {
      lower = pivot;
      pivot += step;
    } else {
      upper = pivot;
      pivot -= step;
    }
  }
  const float at = code[pivot];
  if (value > at) return value > __fmul_rn(__fadd_rn(code[upper], at), 0.5f) ? upper : pivot;
  return value < __fmul_rn(__fadd_rn(code[lower], at), 0.5f) ? lower : pivot;
}

}  // namespace caravan::cuda
