// The loops of gemm.h for one instruction set: included by gemm_portable.cpp, gemm_avx2.cpp and gemm_avx512.cpp.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_finish.inl"
#include "kernels/cpu/gemm_pack.inl"
#include "kernels/cpu/gemm_skinny.inl"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int tile_mr = 12;
#elif defined(__AVX2__)
constexpr int tile_mr = 6;
#else
constexpr int tile_mr = 4;
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Micro-kernel: c (mr, nr) = or continues from c, a (mr, kc) times a packed panel b (kc, nr)

/// Element (i, k) of A lies at a[i * row_stride + k * k_stride]; one of the strides is 1.
template <int mr, bool a_k_contiguous>
void micro_kernel(int64_t kc, const float* a, int64_t stride, const float* b, float* c, int64_t ldc, bool resume) {
  const int64_t row_stride = a_k_contiguous ? stride : 1;
  const int64_t k_stride = a_k_contiguous ? 1 : stride;
  Vec sum[mr][2];
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    sum[i][0] = resume ? load(c + i * ldc) : zero();
    sum[i][1] = resume ? load(c + i * ldc + Vec::width) : zero();
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
    store(c + i * ldc, sum[i][0]);
    store(c + i * ldc + Vec::width, sum[i][1]);
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

// ---------------------------------------------------------------------------------------------------------------------
// Tile: blocks of k outermost, then groups of packed columns, panels, and panels of rows

void gemm_tile(const Gemm& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* scratch) {
  float* staged_a = scratch;
  float* staged_b = staged_a + max_tile_rows * max_block_k;
  float* packed_b = staged_b + column_group * max_block_k;
  float* between = packed_b + column_group * max_block_k;
  float corner[tile_mr * panel_columns];

  const int64_t blocks = g.k == 0 ? 1 : (g.k + max_block_k - 1) / max_block_k;
  const int64_t block_k = (g.k + blocks - 1) / blocks;
  const bool stage = needs_staging(g.a);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t k0 = block * block_k;
    const int64_t kc = k0 + block_k < g.k ? block_k : g.k - k0;
    const bool last = block + 1 == blocks;
    const bool resume = block > 0;

    const float* a = static_cast<const float*>(g.a.data) + i0 * g.a.ld + k0;
    int64_t stride = g.a.ld;
    if (stage) {
      stride = g.a.k_contiguous ? max_block_k : max_tile_rows;
      stage_operand(staged_a, stride, g.a, i0, i1, k0, kc, *g.tables);
      a = staged_a;
    }
    for (int64_t group = j0; group < j1; group += column_group) {
      const int64_t group_end = group + column_group < j1 ? group + column_group : j1;
      pack_columns(packed_b, staged_b, g.b, group, group_end, k0, kc, *g.tables);
      for (int64_t j = group; j < group_end; j += panel_columns) {
        const float* panel = packed_b + (j - group) * kc;
        const int64_t columns = j + panel_columns < group_end ? panel_columns : group_end - j;
        for (int64_t i = 0; i < i1 - i0; i += tile_mr) {
          const int64_t rows = i + tile_mr < i1 - i0 ? tile_mr : i1 - i0 - i;
          const MicroKernel kernel =
              g.a.k_contiguous ? micro_kernel_for<true>(rows) : micro_kernel_for<false>(rows);
          const float* a_panel = a + (g.a.k_contiguous ? i * stride : i);
          if (last && !resume) {
            kernel(kc, a_panel, stride, panel, corner, panel_columns, false);
            finish(g, corner, panel_columns, i0 + i, rows, j, columns);
          } else {
            float* c = between + i * max_tile_columns + (j - j0);
            kernel(kc, a_panel, stride, panel, c, max_tile_columns, resume);
            if (last) finish(g, c, max_tile_columns, i0 + i, rows, j, columns);
          }
        }
      }
    }
  }
}

}  // namespace

extern const GemmKernels kernels;
const GemmKernels kernels = {gemm_tile, skinny_prepare, skinny_columns, dequantize};

}  // namespace caravan::cpu::CARAVAN_ISA
