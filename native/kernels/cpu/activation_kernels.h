// The element-wise loops of activation.h, by instruction set.
#pragma once

#include <cstdint>

namespace caravan::cpu {

/// Each works on elements [first, last) of arrays that are all f32 or all bf16, but for `convert`.
struct ActivationKernels {
  void (*swiglu_forward)(bool bf16, void* out, const void* gate, const void* up, int64_t first, int64_t last);
  void (*swiglu_backward)(bool bf16, void* dgate, void* dup, const void* dout, const void* gate, const void* up,
                          int64_t first, int64_t last);
  void (*gelu_forward)(bool bf16, void* out, const void* x, int64_t first, int64_t last);
  void (*gelu_backward)(bool bf16, void* dx, const void* dout, const void* x, int64_t first, int64_t last);
  /// y = x, or y + x with `accumulate`; each of its own type.
  void (*convert)(bool y_bf16, bool x_bf16, bool accumulate, void* y, const void* x, int64_t first, int64_t last);
};

}  // namespace caravan::cpu
