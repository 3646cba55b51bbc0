// The loop of dropout_kernels.h for one instruction set: included by dropout_portable.cpp, dropout_avx2.cpp and
// dropout_avx512.cpp.
#include "kernels/cpu/dropout_kernels.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

/// x where the word reaches the threshold, else 0 (a dropped NaN is gone).
CARAVAN_INLINE Vec kept(Vec x, const uint32_t* words, uint32_t threshold) {
#if defined(__AVX512F__)
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(threshold));
  return {_mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(words), limit), x.v)};
#elif defined(__AVX2__)
  const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
  const __m256i larger = _mm256_max_epu32(word, _mm256_set1_epi32(static_cast<int>(threshold)));
  return {_mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(word, larger)), x.v)};
#else
  return each([&](int i) { return words[i] >= threshold ? x.v[i] : 0.0f; });
#endif
}

template <bool accumulate, typename T>
void apply_typed(T* y, const T* x, const uint32_t* words, int64_t count, uint32_t threshold, float scale) {
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) {
    const Vec value = kept(load(x + i) * all(scale), words + i, threshold);
    store(y + i, accumulate ? load(y + i) + value : value);
  }
  for (; i < count; ++i) {
    const float value = words[i] >= threshold ? widen(x[i]) * scale : 0.0f;
    store_one(y + i, accumulate ? widen(y[i]) + value : value);
  }
}

template <typename T>
void apply_to(bool accumulate, void* y, const void* x, const uint32_t* words, int64_t count, uint32_t threshold,
              float scale) {
  const auto apply = accumulate ? apply_typed<true, T> : apply_typed<false, T>;
  apply(static_cast<T*>(y), static_cast<const T*>(x), words, count, threshold, scale);
}

void apply(bool bf16, bool accumulate, void* y, const void* x, const uint32_t* words, int64_t count, uint32_t threshold,
           float scale) {
  (bf16 ? apply_to<bf16_bits> : apply_to<float>)(accumulate, y, x, words, count, threshold, scale);
}

}  // namespace

extern const DropoutKernels dropout;
const DropoutKernels dropout = {apply};

}  // namespace caravan::cpu::CARAVAN_ISA
