// minhash_minima of kernels/minhash.h, by instruction set.
#pragma once

#include <cstdint>

namespace caravan::cpu {

// `permutations` is a multiple of 8.
namespace avx2 {
void minhash_minima(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a, const uint64_t* b,
                    int64_t permutations);
}
namespace avx512 {
void minhash_minima(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a, const uint64_t* b,
                    int64_t permutations);
}

}  // namespace caravan::cpu
