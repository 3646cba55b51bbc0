// The micro-kernel: c (mr, panel_columns) = or += a (mr, kc) times a packed panel b (kc, panel_columns), all sums in
// registers. A block of k is summed from zero and then added: a shorter chain rounds less than one that goes on from c.
#pragma once

#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

constexpr int64_t panel_columns = 2 * Vec::width;
#if defined(__AVX512F__)
constexpr int tile_mr = 12;
#elif defined(__AVX2__)
constexpr int tile_mr = 6;
#else
constexpr int tile_mr = 4;
#endif

/// Element (i, k) of A lies at a[i * row_stride + k * k_stride]; one of the strides is 1.
template <int mr, bool a_k_contiguous>
void micro_kernel(int64_t kc, const float* a, int64_t stride, const float* b, float* c, int64_t ldc, bool resume) {
  const int64_t row_stride = a_k_contiguous ? stride : 1;
  const int64_t k_stride = a_k_contiguous ? 1 : stride;
  Vec sum[mr][2];
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    sum[i][0] = zero();
    sum[i][1] = zero();
  }
  for (int64_t k = 0; k < kc; ++k) {
    const Vec b0 = load(b);
    const Vec b1 = load(b + Vec::width);
#pragma GCC unroll 16
    for (int i = 0; i < mr; ++i) {
      const Vec value = all(a[i * row_stride]);
      sum[i][0] = fma(value, b0, sum[i][0]);
      sum[i][1] = fma(value, b1, sum[i][1]);
    }
    a += k_stride;
    b += panel_columns;
  }
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    float* row = c + i * ldc;
    store(row, resume ? load(row) + sum[i][0] : sum[i][0]);
    store(row + Vec::width, resume ? load(row + Vec::width) + sum[i][1] : sum[i][1]);
  }
}

using MicroKernel = void (*)(int64_t, const float*, int64_t, const float*, float*, int64_t, bool);

template <bool a_k_contiguous>
MicroKernel micro_kernel_for(int64_t rows) {
  switch (rows) {
    case 1: return micro_kernel<1, a_k_contiguous>;
    case 2: return micro_kernel<2, a_k_contiguous>;
    case 3: return micro_kernel<3, a_k_contiguous>;
    case 4: return micro_kernel<4, a_k_contiguous>;
#if defined(__AVX2__)
    case 5: return micro_kernel<5, a_k_contiguous>;
    case 6: return micro_kernel<6, a_k_contiguous>;
#endif
#if defined(__AVX512F__)
    case 7: return micro_kernel<7, a_k_contiguous>;
    case 8: return micro_kernel<8, a_k_contiguous>;
    case 9: return micro_kernel<9, a_k_contiguous>;
    case 10: return micro_kernel<10, a_k_contiguous>;
    case 11: return micro_kernel<11, a_k_contiguous>;
#endif
    default: return micro_kernel<tile_mr, a_k_contiguous>;
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
