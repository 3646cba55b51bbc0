// The loops of gemm.h for one instruction set: included by gemm_portable.cpp, gemm_avx2.cpp, gemm_avx512.cpp
// and gemm_avx512bf16.cpp.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_finish.inl"
#include "kernels/cpu/gemm_micro.inl"
#include "kernels/cpu/gemm_pack.inl"
#include "kernels/cpu/gemm_skinny.inl"
#if defined(__AVX512BF16__)
#include "kernels/cpu/gemm_bf16.inl"
#endif

namespace caravan::cpu::CARAVAN_ISA {
namespace {

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
          const MicroKernel kernel = g.a.k_contiguous ? micro_kernel_for<true>(rows) : micro_kernel_for<false>(rows);
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
#if defined(__AVX512BF16__)
const GemmKernels kernels = {gemm_tile, gemm_tile_bf16, skinny_prepare, skinny_columns, dequantize};
#else
const GemmKernels kernels = {gemm_tile, nullptr, skinny_prepare, skinny_columns, dequantize};
#endif

}  // namespace caravan::cpu::CARAVAN_ISA
