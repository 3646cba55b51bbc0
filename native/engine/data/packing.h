// Laying one step's conversations into bins of a fixed length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace caravan {

/// Best-fit decreasing: conversations by falling length (equal lengths in their given order), each into the fullest bin
/// that still has room (the earliest of equals), else into a new one. Returns the conversations of each bin, in the order
/// they were laid. @throws EngineError bad_option for a conversation longer than `bin_length`.
std::vector<std::vector<int32_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t bin_length);

}  // namespace caravan
