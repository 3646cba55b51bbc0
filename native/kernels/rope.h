// Rotary position embedding (Su et al., arXiv 2104.09864) in the half-split convention of Hugging Face ("rotate_half").
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// Rotates x (N, heads, head_dim) in place by the angles of `positions` (N). cos and sin (positions, head_dim / 2) f32,
/// scaling already applied. `inverse` rotates back: the backward pass.
void rope_apply(const Exec& exec, Ptr x, const float* cos, const float* sin, const int32_t* positions, int64_t n,
                int64_t heads, int64_t head_dim, bool inverse);

}  // namespace caravan
