#include "engine/data/packing.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>

#include "engine/platform/error.h"

namespace caravan {

std::vector<std::vector<int32_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t bin_length) {
  std::vector<int32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  std::vector<std::vector<int32_t>> bins;
  std::set<std::pair<int64_t, size_t>> room;  // (free tokens, bin)
  for (const int32_t conversation : order) {
    const int64_t length = lengths[static_cast<size_t>(conversation)];
    if (length > bin_length)
      throw EngineError("bad_option", "a conversation of " + std::to_string(length) + " tokens is longer than seqLen " +
                                          std::to_string(bin_length) + "; build the mix with this seqLen or raise it");
    const auto found = room.lower_bound({length, 0});
    size_t bin = bins.size();
    int64_t left = bin_length;
    if (found == room.end()) {
      bins.emplace_back();
    } else {
      left = found->first;
      bin = found->second;
      room.erase(found);
    }
    bins[bin].push_back(conversation);
    room.insert({left - length, bin});
  }
  return bins;
}

}  // namespace caravan
