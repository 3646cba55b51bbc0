// Dropout whose mask is a pure function of (seed, optimizer step, conversation in the batch, position, layer, site,
// channel): packing, micro-batches, recomputation and the device leave it alone.
#pragma once

#include "kernels/exec.h"
#include "kernels/philox.h"

namespace caravan {

/// Sites of one decoder layer: the input of each LoRA, and the input of the adapters (one mask per token, shared by its
/// experts).
enum class DropoutSite : uint32_t { q = 0, k, v, o, gate, up, down, adapter };

/// Element (row r, channel c) is kept iff philox(seed, step, conversation[r], position[r], layer * 16 + site, c / 4)
/// .word[c % 4] >= floor(p * 2^32), and is then scaled by 1 / (1 - p) in fp32.
struct DropoutMask {
  float p = 0.0f;
  uint32_t seed = 0;
  uint32_t step = 0;  // optimizer step, counted from 1
  uint32_t layer = 0;
  DropoutSite site = DropoutSite::q;
  const int32_t* conversation = nullptr;  // (N) index of the row's conversation in the batch (not in the micro-batch)
  const int32_t* position = nullptr;      // (N) position in its conversation
};

/// y (N, C) = x masked and scaled (a copy when p is 0). The backward pass is the same function on the gradient.
/// y += when `accumulate`.
void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c, bool accumulate);

}  // namespace caravan
