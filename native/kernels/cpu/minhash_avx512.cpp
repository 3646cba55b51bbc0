#include "kernels/cpu/minhash_kernels.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::avx512 {
namespace {

using Lanes = __m512i;
constexpr int lanes = 8;

CARAVAN_INLINE Lanes load_lanes(const uint64_t* p) { return _mm512_loadu_si512(p); }
CARAVAN_INLINE Lanes every(uint64_t value) { return _mm512_set1_epi64(static_cast<int64_t>(value)); }
CARAVAN_INLINE Lanes spread(uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
CARAVAN_INLINE Lanes multiply_low_halves(Lanes a, Lanes b) { return _mm512_mul_epu32(a, b); }
CARAVAN_INLINE Lanes add(Lanes a, Lanes b) { return _mm512_add_epi64(a, b); }
CARAVAN_INLINE Lanes both(Lanes a, Lanes b) { return _mm512_and_si512(a, b); }
template <int bits>
CARAVAN_INLINE Lanes right(Lanes a) {
  return _mm512_srli_epi64(a, bits);
}
template <int bits>
CARAVAN_INLINE Lanes left(Lanes a) {
  return _mm512_slli_epi64(a, bits);
}
CARAVAN_INLINE Lanes least_halves(Lanes a, Lanes b) { return _mm512_min_epu32(a, b); }
CARAVAN_INLINE void store_low_halves(uint32_t* p, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi64_epi32(a));
}

}  // namespace

#include "kernels/cpu/minhash_isa.inl"

}  // namespace caravan::cpu::avx512
