// LoRA's products made of others: what the CPU runs, and CUDA where its own kernels do not fit. Rows lie close here.
#pragma once

#include "kernels/dropout.h"
#include "kernels/lora.h"
#include "kernels/matmul.h"

namespace caravan {

inline void check_close_rows(const LoraPart& part, int64_t x_row, int64_t c, int64_t r) {
  if (x_row == c && (part.u_row == 0 || part.u_row == r)) return;
  throw EngineError("internal", "LoRA's products with rows apart need a GPU, bf16 and widths that 8 divides");
}

/// drop_p(x): x itself where all is kept, else in `scratch`.
inline ConstPtr dropped_input(const Exec& exec, const LoraPart& part, ConstPtr x, Ptr scratch, int64_t n, int64_t c) {
  if (part.kept == nullptr) return x;
  dropout_apply(exec, scratch, x, part.kept, 1.0f, n, c, false);
  return scratch;
}

inline void composed_forward(const Exec& exec, const LoraPart& part, ConstPtr x, int64_t x_row, Ptr scratch, int64_t n,
                             int64_t c, int64_t r, float scale) {
  check_close_rows(part, x_row, c, r);
  linear_forward(exec, part.u, dropped_input(exec, part, x, scratch, n, c), Weight::of(part.a, r, c), nullptr, n, scale,
                 false);
}

inline void composed_backward_weight(const Exec& exec, const LoraPart& part, ConstPtr x, int64_t x_row, Ptr scratch,
                                     int64_t n, int64_t c, int64_t r) {
  check_close_rows(part, x_row, c, r);
  linear_backward_weight(exec, part.da, part.u, dropped_input(exec, part, x, scratch, n, c), n, r, c, 1.0f);
}

inline void composed_backward_input(const Exec& exec, const LoraPart& part, Ptr dx, Ptr scratch, int64_t n, int64_t c,
                                    int64_t r) {
  const Weight a = Weight::of(part.a, r, c);
  if (part.kept == nullptr) return linear_backward_input(exec, dx, part.u, a, n, 1.0f, true);
  linear_backward_input(exec, scratch, part.u, a, n, 1.0f, false);
  dropout_apply(exec, dx, scratch, part.kept, 1.0f, n, c, true);
}

}  // namespace caravan
