// The order in which an epoch visits the rows of a shard.
#pragma once

#include <cstdint>
#include <vector>

namespace caravan {

/// Row numbers in the order of `epoch` (from 0): a Fisher-Yates shuffle drawn from Philox, a pure function of its
/// arguments. Draw i picks from i + 1 rows by multiplying a 32-bit word: no choice is off by more than (i + 1) / 2^32.
std::vector<int32_t> row_order(uint32_t seed, uint32_t epoch, int64_t rows);

}  // namespace caravan
