// Streams of Philox words for the kernels that draw one per element, by the widest instruction set at hand.
#pragma once

#include <cstdint>

namespace caravan::cpu {

/// What all words of one row share: philox(key0, key1, c0, c1, c2, group).
struct PhiloxRow {
  uint32_t key0, key1, c0, c1, c2;
};

/// words (4 * groups): the outputs of groups `first_group` .. first_group + groups - 1, in order.
void philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups);

namespace portable {
void philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups);
}
namespace avx2 {
/// `groups` is a multiple of 8.
void philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups);
}  // namespace avx2

}  // namespace caravan::cpu
