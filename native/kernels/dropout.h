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
/// .word[c % 4] >= floor(p * 2^32), and is then scaled by 1 / (1 - p) in fp32
/// by whoever applies the mask.
struct DropoutMask {
  float p = 0.0f;
  uint32_t seed = 0;
  uint32_t step = 0;  // optimizer step, counted from 1
  uint32_t layer = 0;
  DropoutSite site = DropoutSite::q;
  const int32_t* conversation = nullptr;  // (N) index of the row's conversation in the batch (not in the micro-batch)
  const int32_t* position = nullptr;      // (N) position in its conversation
};

/// A row of a mask as bits: its words, and channel c's bit of word c / 32. Even channels lie in the lower half of a word
/// and odd ones in the upper: a neighbouring pair's bits are 16 apart, so that one shift brings both where they are
/// wanted.
constexpr int64_t kept_words(int64_t c) { return (c + 31) / 32; }
constexpr int kept_bit(int64_t c) { return static_cast<int>(c % 32 / 2 + c % 2 * 16); }

/// The mask, drawn once for all that reads it: kept (N, kept_words(C)); the bits beyond C are 0.
void dropout_kept(const Exec& exec, uint32_t* kept, const DropoutMask& mask, int64_t n, int64_t c);

/// y (N, C) = x * scale where it is kept, else 0; y += when `accumulate`. The backward pass is the same function on the
/// gradient.
void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const uint32_t* kept, float scale, int64_t n, int64_t c,
                   bool accumulate);

}  // namespace caravan
