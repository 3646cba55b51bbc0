#include "kernels/cpu/minhash_kernels.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::avx2 {
namespace {

using Lanes = __m256i;
constexpr int lanes = 4;

CARAVAN_INLINE Lanes load_lanes(const uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
CARAVAN_INLINE Lanes every(uint64_t value) { return _mm256_set1_epi64x(static_cast<int64_t>(value)); }
CARAVAN_INLINE Lanes spread(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }
CARAVAN_INLINE Lanes multiply_low_halves(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
CARAVAN_INLINE Lanes add(Lanes a, Lanes b) { return _mm256_add_epi64(a, b); }
CARAVAN_INLINE Lanes both(Lanes a, Lanes b) { return _mm256_and_si256(a, b); }
template <int bits>
CARAVAN_INLINE Lanes right(Lanes a) {
  return _mm256_srli_epi64(a, bits);
}
template <int bits>
CARAVAN_INLINE Lanes left(Lanes a) {
  return _mm256_slli_epi64(a, bits);
}
CARAVAN_INLINE Lanes least_halves(Lanes a, Lanes b) { return _mm256_min_epu32(a, b); }
CARAVAN_INLINE void store_low_halves(uint32_t* p, Lanes a) {
  const Lanes packed = _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

}  // namespace

#include "kernels/cpu/minhash_isa.inl"

}  // namespace caravan::cpu::avx2
