#include "engine/data/row_order.h"

#include <cstddef>
#include <numeric>
#include <utility>

#include "kernels/philox.h"

namespace caravan {

std::vector<int32_t> row_order(uint32_t seed, uint32_t epoch, int64_t rows) {
  std::vector<int32_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = rows - 1; i > 0; --i) {
    const auto group = static_cast<uint32_t>(i / 4);
    const Philox4 words = philox(seed, epoch, group, 0, static_cast<uint32_t>(PhiloxUse::row_order), 0);
    const uint64_t pick = uint64_t{words.word[i % 4]} * static_cast<uint64_t>(i + 1) >> 32;
    std::swap(order[static_cast<size_t>(i)], order[pick]);
  }
  return order;
}

}  // namespace caravan
