// Eight Philox blocks at a time. It includes no shared inline code (see simd.h).
#include "kernels/cpu/philox_words.h"

#include <immintrin.h>

namespace caravan::cpu::avx2 {
namespace {

struct Wide {
  __m256i high, low;
};

/// 32 x 32 -> 64 bit products of eight lanes, as high and low halves.
inline __attribute__((always_inline)) Wide multiply(__m256i a, __m256i multiplier) {
  const __m256i even = _mm256_mul_epu32(a, multiplier);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), multiplier);
  return {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA),
          _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA)};
}

}  // namespace

void philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups) {
  const __m256i m0 = _mm256_set1_epi32(static_cast<int>(0xD2511F53u));
  const __m256i m1 = _mm256_set1_epi32(static_cast<int>(0xCD9E8D57u));
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t g = 0; g < groups; g += 8) {
    __m256i c0 = _mm256_set1_epi32(static_cast<int>(row.c0));
    __m256i c1 = _mm256_set1_epi32(static_cast<int>(row.c1));
    __m256i c2 = _mm256_set1_epi32(static_cast<int>(row.c2));
    __m256i c3 = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first_group + static_cast<uint32_t>(g))), lane);
    uint32_t key0 = row.key0, key1 = row.key1;
    for (int round = 0; round < 10; ++round) {
      const Wide p0 = multiply(c0, m0);
      const Wide p1 = multiply(c2, m1);
      const __m256i n0 = _mm256_xor_si256(_mm256_xor_si256(p1.high, c1), _mm256_set1_epi32(static_cast<int>(key0)));
      const __m256i n2 = _mm256_xor_si256(_mm256_xor_si256(p0.high, c3), _mm256_set1_epi32(static_cast<int>(key1)));
      c1 = p1.low;
      c3 = p0.low;
      c0 = n0;
      c2 = n2;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    // From word-major to block-major: 8 blocks of (c0, c1, c2, c3).
    const __m256i a = _mm256_unpacklo_epi32(c0, c1), b = _mm256_unpackhi_epi32(c0, c1);
    const __m256i c = _mm256_unpacklo_epi32(c2, c3), d = _mm256_unpackhi_epi32(c2, c3);
    const __m256i e = _mm256_unpacklo_epi64(a, c), f = _mm256_unpackhi_epi64(a, c);  // blocks 0 | 4, 1 | 5
    const __m256i h = _mm256_unpacklo_epi64(b, d), i = _mm256_unpackhi_epi64(b, d);  // blocks 2 | 6, 3 | 7
    auto* out = reinterpret_cast<__m256i*>(words + 4 * g);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(e, f, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(h, i, 0x20));
    _mm256_storeu_si256(out + 2, _mm256_permute2x128_si256(e, f, 0x31));
    _mm256_storeu_si256(out + 3, _mm256_permute2x128_si256(h, i, 0x31));
  }
}

}  // namespace caravan::cpu::avx2
