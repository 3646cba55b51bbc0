// Element-wise functions of the MLP and its adapters.
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// out (count) = silu(gate) * up.
void swiglu_forward(const Exec& exec, Ptr out, ConstPtr gate, ConstPtr up, int64_t count);
/// dgate, dup (count); may alias gate and up.
void swiglu_backward(const Exec& exec, Ptr dgate, Ptr dup, ConstPtr dout, ConstPtr gate, ConstPtr up, int64_t count);

/// out = x * Phi(x), the exact (erf) form that torch.nn.GELU() computes.
void gelu_forward(const Exec& exec, Ptr out, ConstPtr x, int64_t count);
/// dx = dout * gelu'(x); may alias dout.
void gelu_backward(const Exec& exec, Ptr dx, ConstPtr dout, ConstPtr x, int64_t count);

/// y += x, and y = x converted to y's dtype.
void add_inplace(const Exec& exec, Ptr y, ConstPtr x, int64_t count);
void convert(const Exec& exec, Ptr y, ConstPtr x, int64_t count);
void fill_zero(const Exec& exec, Ptr y, int64_t count);

}  // namespace caravan
