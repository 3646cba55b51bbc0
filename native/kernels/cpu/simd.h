// One vector type per instruction set. A file that includes this is compiled once for each (*_avx2.cpp, *_avx512.cpp
// with flags from CMake, *_portable.cpp without) into the namespace of that set, and chosen at run time (cpu_isa.h).
// Such files keep to raw pointers and to this header: an inline function of a shared header that got compiled with
// wider instructions could be the copy that the linker keeps for everyone.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined vectors inside its own AVX-512 header for mistakes (gcc.gnu.org/PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__)
#define CARAVAN_ISA avx512bf16
#elif defined(__AVX512F__)
#define CARAVAN_ISA avx512
#elif defined(__AVX2__)
#define CARAVAN_ISA avx2
#else
#define CARAVAN_ISA portable
#endif
#if defined(_MSC_VER)
#define CARAVAN_INLINE __forceinline
#else
#define CARAVAN_INLINE inline __attribute__((always_inline))
#endif

namespace caravan::cpu::CARAVAN_ISA {

/// Bits of a bf16; dtype.h's type stays out of these files.
using bf16_bits = uint16_t;

CARAVAN_INLINE float widen(bf16_bits bits) {
  const uint32_t u = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &u, 4);
  return value;
}
CARAVAN_INLINE float widen(float value) { return value; }

/// Round to nearest even; NaN stays a quiet NaN (dtype.h).
CARAVAN_INLINE bf16_bits narrow(float value) {
  uint32_t u;
  std::memcpy(&u, &value, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16_bits>((u >> 16) | 0x0040u);
  return static_cast<bf16_bits>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
CARAVAN_INLINE void store_one(float* p, float value) { *p = value; }
CARAVAN_INLINE void store_one(bf16_bits* p, float value) { *p = narrow(value); }

#if defined(__AVX512F__)

struct Vec {
  static constexpr int width = 16;
  __m512 v;
};
CARAVAN_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
CARAVAN_INLINE Vec all(float x) { return {_mm512_set1_ps(x)}; }
CARAVAN_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
CARAVAN_INLINE Vec load(const bf16_bits* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
CARAVAN_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
CARAVAN_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
CARAVAN_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
/// The second argument where either is NaN.
CARAVAN_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
/// `yes` where a < b, else `no`.
CARAVAN_INLINE Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
CARAVAN_INLINE Vec round_to_integer(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a * 2^n for integral n in [-126, 127].
CARAVAN_INLINE Vec scale_by_power(Vec a, Vec n) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23);
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(bits))};
}
CARAVAN_INLINE __m512i round_bits(Vec a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x00400000));
}
CARAVAN_INLINE void store(bf16_bits* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(round_bits(a), 16)));
}
/// The nearest bf16, as fp32.
CARAVAN_INLINE Vec round_to_bf16(Vec a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(round_bits(a), _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}

#elif defined(__AVX2__)

struct Vec {
  static constexpr int width = 8;
  __m256 v;
};
CARAVAN_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
CARAVAN_INLINE Vec all(float x) { return {_mm256_set1_ps(x)}; }
CARAVAN_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
CARAVAN_INLINE Vec load(const bf16_bits* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
CARAVAN_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
CARAVAN_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
CARAVAN_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
CARAVAN_INLINE Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
CARAVAN_INLINE Vec round_to_integer(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
CARAVAN_INLINE Vec scale_by_power(Vec a, Vec n) {
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(bits))};
}
CARAVAN_INLINE __m256i round_bits(Vec a) {
  const __m256i u = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(u, _mm256_set1_epi32(0x00400000)), nan);
}
CARAVAN_INLINE void store(bf16_bits* p, Vec a) {
  const __m256i words = _mm256_srli_epi32(round_bits(a), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
CARAVAN_INLINE Vec round_to_bf16(Vec a) {
  return {_mm256_castsi256_ps(_mm256_and_si256(round_bits(a), _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}

#else

struct Vec {
  static constexpr int width = 4;
  float v[width];
};
template <typename F>
CARAVAN_INLINE Vec each(F&& f) {
  Vec r;
  for (int i = 0; i < Vec::width; ++i) r.v[i] = f(i);
  return r;
}
CARAVAN_INLINE Vec zero() {
  return each([](int) { return 0.0f; });
}
CARAVAN_INLINE Vec all(float x) {
  return each([=](int) { return x; });
}
template <typename T>
CARAVAN_INLINE Vec load(const T* p) {
  return each([=](int i) { return widen(p[i]); });
}
template <typename T>
CARAVAN_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < Vec::width; ++i) store_one(p + i, a.v[i]);
}
CARAVAN_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
CARAVAN_INLINE Vec operator+(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
CARAVAN_INLINE Vec operator-(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
CARAVAN_INLINE Vec operator*(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
CARAVAN_INLINE Vec operator/(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
CARAVAN_INLINE Vec max(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
CARAVAN_INLINE Vec min(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
CARAVAN_INLINE Vec select_less(Vec a, Vec b, Vec yes, Vec no) {
  return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
CARAVAN_INLINE Vec round_to_integer(Vec a) {
  return each([&](int i) { return __builtin_rintf(a.v[i]); });
}
CARAVAN_INLINE Vec scale_by_power(Vec a, Vec n) {
  return each([&](int i) { return __builtin_ldexpf(a.v[i], static_cast<int>(n.v[i])); });
}
CARAVAN_INLINE Vec round_to_bf16(Vec a) {
  return each([&](int i) { return widen(narrow(a.v[i])); });
}

#endif

/// Lanes summed pairwise, always in the same order.
CARAVAN_INLINE float sum_lanes(Vec a) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  const __m256 eight = a.v;
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
#endif
}
CARAVAN_INLINE float max_lane(Vec a) {
  float lane[Vec::width];
  store(lane, a);
  for (int half = Vec::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
  }
  return lane[0];
}

/// e^x within 2 ulp: 2^n times a polynomial on |r| <= ln(2) / 2 (Cephes' expf). 0 below 2.4e-38,
/// infinity above the largest; NaN stays.
CARAVAN_INLINE Vec exp(Vec x) {
  const Vec lowest = all(-86.6f);  // n - 1 must stay a normal exponent
  const Vec highest = all(88.72283f);
  const Vec clamped = min(highest, max(lowest, x));
  // One less than the exponent and twice the value, since 2^128 itself is no float.
  const Vec n = round_to_integer(clamped * all(1.44269504088896341f));
  const Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), clamped));
  Vec p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r + all(1.0f));
  const Vec value = scale_by_power(p + p, n - all(1.0f));
  return select_less(highest, x, all(__builtin_inff()), select_less(x, lowest, zero(), value));
}

/// erf(x) within 4 ulp of 1: a rational function of x^2 on [-4, 4], +-1 beyond (fp32 cannot tell; the form of Eigen's).
CARAVAN_INLINE Vec erf(Vec x) {
  const Vec c = min(all(4.0f), max(all(-4.0f), x));
  const Vec s = c * c;
  Vec p = all(-2.72614225801306e-10f);
  p = fma(p, s, all(2.77068142495902e-08f));
  p = fma(p, s, all(-2.10102402082508e-06f));
  p = fma(p, s, all(-5.69250639462346e-05f));
  p = fma(p, s, all(-7.34990630326855e-04f));
  p = fma(p, s, all(-2.95459980854025e-03f));
  p = fma(p, s, all(-1.60960333262415e-02f));
  Vec q = all(-1.45660718464996e-05f);
  q = fma(q, s, all(-2.13374055278905e-04f));
  q = fma(q, s, all(-1.68282697438203e-03f));
  q = fma(q, s, all(-7.37332916720468e-03f));
  q = fma(q, s, all(-1.42647390514189e-02f));
  return c * p / q;
}

}  // namespace caravan::cpu::CARAVAN_ISA
