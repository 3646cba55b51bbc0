// The products of LoRA at the narrow side, over the input x (N, C) of up to three projections at once: x is read once
// for all of them, and dropout happens where it is read. drop_p(x) is x where projection p keeps it, else 0; what remains
// is scaled by the caller through `scale`, so that no product meets a rounded copy of x.
#pragma once

#include "kernels/exec.h"

namespace caravan {

constexpr int max_lora_parts = 3;

/// One projection's share.
struct LoraPart {
  ConstPtr a;                      // (R, C); f32 is rounded to the activations' type
  const uint32_t* kept = nullptr;  // (N, kept_words(C)) as dropout_kept writes it; null: all is kept
  Ptr u;                           // (N, R): u, or in the backward pass its gradient
  int64_t u_row = 0;               // elements from one of its rows to the next in the forward pass; 0: R
  float* da = nullptr;             // (R, C): gradient of a; may be null where it is not asked for
};

// `scratch` (N, C) of x's type: where a device has no better way, the masked copy lies there. Rows of x are `x_row`
// elements apart: C on the CPU.

/// u_p = scale * drop_p(x) A_p^T, rounded once.
void lora_down_forward(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row, Ptr scratch,
                       int64_t n, int64_t c, int64_t r, float scale);
/// da_p += u_p^T drop_p(x): sums in fp32 in an order that depends on the shapes (and the device) alone.
void lora_down_backward_weight(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row,
                               Ptr scratch, int64_t n, int64_t c, int64_t r);
/// dx (N, C) += u_p A_p where projection p keeps it, for one p after the other; each product and each sum is rounded.
void lora_down_backward_input(const Exec& exec, const LoraPart* parts, int count, Ptr dx, Ptr scratch, int64_t n,
                              int64_t c, int64_t r);

}  // namespace caravan
