// From finished sums to C: scale, bias, what C held, and C's own type.
#pragma once

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

CARAVAN_INLINE void store_result(float* c, Vec value) { store(c, value); }
CARAVAN_INLINE void store_result(bf16_bits* c, Vec value) {
#if defined(__AVX512BF16__)
  // One instruction for eight; it makes zeros of subnormal numbers, as the product itself does.
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), (__m256i)_mm512_cvtneps_pbh(value.v));
#else
  store(c, value);
#endif
}

template <typename T>
CARAVAN_INLINE void finish_row(T* c, const float* sum, const float* bias, int64_t columns, float scale,
                               bool accumulate) {
  int64_t j = 0;
  for (; j + Vec::width <= columns; j += Vec::width) {
    Vec value = all(scale) * load(sum + j);
    if (bias != nullptr) value = value + load(bias + j);
    if (accumulate) value = value + load(c + j);
    store_result(c + j, value);
  }
  for (; j < columns; ++j) {
    float value = scale * sum[j];
    if (bias != nullptr) value += bias[j];
    if (accumulate) value += widen(c[j]);
    store_one(c + j, value);
  }
}

void finish(const Gemm& g, const float* sums, int64_t ld, int64_t i0, int64_t rows, int64_t j0, int64_t columns) {
  const float* bias = g.bias == nullptr ? nullptr : g.bias + j0;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t at = (i0 + i) * g.n + j0;
    if (g.c_is_bf16) {
      finish_row(static_cast<bf16_bits*>(g.c) + at, sums + i * ld, bias, columns, g.scale, g.accumulate);
    } else {
      finish_row(static_cast<float*>(g.c) + at, sums + i * ld, bias, columns, g.scale, g.accumulate);
    }
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
