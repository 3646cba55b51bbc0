// Products in true fp32 (no TF32), and of operands of different types: tiles of 64 x 64, 4 x 4 sums a thread.
#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm_tile.cuh"

namespace caravan::cuda {
namespace {

constexpr int tile_rows = 64, tile_cols = 64, tile_k = 16, threads = 256;
constexpr int padded = 64 + 4;  // rows stay 16-byte aligned and the transposing stores meet fewer bank conflicts

/// Elements [outer, outer_end) x [k, k_end) as tile[k][outer] in fp32, zeros around them. Neighbouring threads read
/// neighbouring memory.
template <typename T>
__device__ void load_operand(float (&tile)[tile_k][padded], const T* data, int64_t ld, bool k_contiguous, int64_t outer,
                             int64_t outer_end, int64_t k, int64_t k_end) {
#pragma unroll
  for (int i = 0; i < 64 * tile_k / threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    const int row = k_contiguous ? at / tile_k : at % 64, depth = k_contiguous ? at % tile_k : at / 64;
    const int64_t o = outer + row, d = k + depth;
    const int64_t from = k_contiguous ? o * ld + d : d * ld + o;
    tile[depth][row] = o < outer_end && d < k_end ? static_cast<float>(data[from]) : 0.0f;
  }
}

template <typename A, typename B>
__global__ void __launch_bounds__(threads)
    gemm_simt_kernel(const __grid_constant__ GemmArgs g, bool a_k_contiguous, bool b_k_contiguous) {
  __shared__ __align__(16) float tile_a[tile_k][padded], tile_b[tile_k][padded];
  GemmTile tile;
  if (!find_tile(g, blockIdx.y, blockIdx.x, static_cast<int>(blockIdx.z), tile_rows, tile_cols, tile)) return;
  const auto* const a = static_cast<const A*>(g.a);
  const auto* const b = static_cast<const B*>(g.b) + tile.b_offset;
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, col = static_cast<int>(threadIdx.x) % 16 * 4;
  float sums[4][4] = {};
  for (int64_t k = tile.k; k < tile.k_end; k += tile_k) {
    load_operand(tile_a, a, g.lda, a_k_contiguous, tile.row, tile.row_end, k, tile.k_end);
    load_operand(tile_b, b, g.ldb, b_k_contiguous, tile.col, g.n, k, tile.k_end);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < tile_k; ++d) {
      const float4 x = *reinterpret_cast<const float4*>(&tile_a[d][row]);
      const float4 y = *reinterpret_cast<const float4*>(&tile_b[d][col]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(xs[i], ys[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t r = tile.row + row + i;
    if (r >= tile.row_end) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t c = tile.col + col + j;
      if (c < g.n) store_element(g, tile, r, c, sums[i][j]);
    }
  }
}

}  // namespace

void gemm_simt(const Exec& exec, const Gemm& gemm) {
  if (gemm.m == 0 || gemm.n == 0) return;
  const dim3 grid(static_cast<unsigned>((gemm.n + tile_cols - 1) / tile_cols),
                  static_cast<unsigned>(row_tiles(gemm, tile_rows)),
                  gemm.grouped_by == GroupedBy::k ? static_cast<unsigned>(gemm.groups) : 1);
  dispatch(gemm.a.data.dtype, [&]<typename A>() {
    dispatch(gemm.b.data.dtype, [&]<typename B>() {
      gemm_simt_kernel<A, B>
          <<<grid, threads, 0, stream_of(exec)>>>(GemmArgs(gemm), gemm.a.k_contiguous, gemm.b.k_contiguous);
    });
  });
  check_launch("gemm_simt");
}

}  // namespace caravan::cuda
