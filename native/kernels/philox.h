// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter-based generator,
// so that every random choice is a pure function of where it is made and nothing needs to be saved to resume.
#pragma once

#include <array>
#include <cstdint>

#ifdef __CUDACC__
#define CARAVAN_HOST_DEVICE __host__ __device__
#else
#define CARAVAN_HOST_DEVICE
#endif

namespace caravan {

struct Philox4 {
  uint32_t word[4];
};

CARAVAN_HOST_DEVICE constexpr Philox4 philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2,
                                             uint32_t c3) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// Uniform in [0, 1) with 24 bits.
CARAVAN_HOST_DEVICE constexpr float uniform01(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// The third counter word's upper bits say what a draw is for, so that no two uses share a stream. Dropout uses
/// layer * 16 + site with site < 8 (see dropout.h) and layer < 2^20; every other use sets the top bit.
enum class PhiloxUse : uint32_t {
  init = 0x80000000u,                 // key (seed, 0), counter (element / 4 low, high, use | parameter index, 0)
  stochastic_rounding = 0x90000000u,  // key (seed, step), counter (element / 4 low, high, use | parameter index, micro)
  row_order = 0xA0000000u,            // key (seed, epoch), counter (index / 4, 0, use, 0)
  sampling = 0xB0000000u,             // key (seed, 0), counter (token index, 0, use, 0)
};

}  // namespace caravan
