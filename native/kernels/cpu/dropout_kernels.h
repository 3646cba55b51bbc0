// The element-wise loop of dropout.h, by instruction set.
#pragma once

#include <cstdint>

namespace caravan::cpu {

struct DropoutKernels {
  /// y (count) = or += x * scale where words[i] >= threshold, else 0. y and x are all f32 or all bf16.
  void (*apply)(bool bf16, bool accumulate, void* y, const void* x, const uint32_t* words, int64_t count,
                uint32_t threshold, float scale);
};

}  // namespace caravan::cpu
