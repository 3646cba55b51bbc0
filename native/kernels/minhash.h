// The permutations of MinHash (Broder 1997): h -> ((a h + b) mod 2^61 - 1) mod 2^32. Exact integers: every device and
// instruction set gives the same minima, bit for bit.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CARAVAN_MINHASH_INLINE __host__ __device__ constexpr
#else
#define CARAVAN_MINHASH_INLINE constexpr
#endif

namespace caravan {

constexpr uint64_t minhash_prime = (uint64_t{1} << 61) - 1;

/// 1 <= a < prime, 0 <= b < prime.
CARAVAN_MINHASH_INLINE uint32_t minhash_permute(uint32_t h, uint64_t a, uint64_t b) {
  // a h is at most 93 bits. In halves of a, and with 2^61 = 1 (mod prime), all sums stay below 2^63.
  const uint64_t high = (a >> 32) * h;         // < 2^61, counts 2^32
  const uint64_t low = (a & 0xffffffffu) * h;  // < 2^64
  const uint64_t sum = (high >> 29) + ((high << 32) & minhash_prime) + (low >> 61) + (low & minhash_prime) + b;
  const uint64_t folded = (sum >> 61) + (sum & minhash_prime);  // <= prime + 3
  // Minus the prime, modulo 2^32, is plus one.
  return static_cast<uint32_t>(folded + ((folded + 1) >> 61));
}

/// minima[i] = the least of minhash_permute(hashes[j], a[i], b[i]) over j < count; 2^32 - 1 where count is 0. CPU.
void minhash_minima(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a, const uint64_t* b,
                    int64_t permutations);

}  // namespace caravan
