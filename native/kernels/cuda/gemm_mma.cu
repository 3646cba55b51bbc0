// bf16 products on the tensor cores of every architecture from sm_80 on: mma.sync m16n8k16 over tiles of 128 x 128 that
// cp.async brings into shared memory four stages ahead.
#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm_tile.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace caravan::cuda {
namespace {

constexpr int tile_rows = 128, tile_cols = 128, tile_k = 32;
constexpr int stages = 4, threads = 256;
constexpr int warp_rows = 64, warp_cols = 32;  // 2 x 4 warps
constexpr int operand_elements = 128 * tile_k;
constexpr size_t shared_bytes = sizeof(__nv_bfloat16) * stages * 2 * operand_elements;

/// A tile of an operand in shared memory: 16-byte chunks of 8 elements, placed so that the eight chunks which ldmatrix
/// reads at a time lie in different banks. k-contiguous: (128 outer, 32 k); else (32 k, 128 outer).
template <bool k_contiguous>
__device__ int chunk_offset(int line, int chunk) {
  if constexpr (k_contiguous) {
    return line * tile_k + ((chunk ^ ((line >> 1) & 3)) << 3);
  } else {
    return line * 128 + ((chunk ^ (line & 7)) << 3);
  }
}

/// Elements [outer, outer_end) x [k, k_end) of the operand, zeros around them. `wide`: every chunk is 16-byte aligned.
template <bool k_contiguous, bool wide>
__device__ void load_operand(__nv_bfloat16* tile, const __nv_bfloat16* data, int64_t ld, int64_t outer,
                             int64_t outer_end, int64_t k, int64_t k_end) {
#pragma unroll
  for (int i = 0; i < operand_elements / 8 / threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    constexpr int chunks = k_contiguous ? tile_k / 8 : 128 / 8;
    const int line = at / chunks, chunk = at % chunks;
    const int64_t line_at = (k_contiguous ? outer : k) + line, line_end = k_contiguous ? outer_end : k_end;
    const int64_t first = (k_contiguous ? k : outer) + chunk * 8, end = k_contiguous ? k_end : outer_end;
    const int64_t left = line_at < line_end ? end - first : 0;
    const int count = left <= 0 ? 0 : left >= 8 ? 8 : static_cast<int>(left);
    __nv_bfloat16* const to = tile + chunk_offset<k_contiguous>(line, chunk);
    const __nv_bfloat16* const from = count == 0 ? data : data + line_at * ld + first;
    if constexpr (wide) {
      copy_16(to, from, 2 * count);
    } else {
      __nv_bfloat16 values[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) values[j] = j < count ? from[j] : __nv_bfloat16(__nv_bfloat16_raw{0});
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
    }
  }
}

/// Registers 0 to 3 of four 8 x 8 matrices, of which lane l addresses row l % 8 of matrix l / 8. `second` says which bit
/// of the matrix's number moves along k: A's fragments go down the rows first, B's along k first.
template <bool k_contiguous, int k_bit>
__device__ void load_fragment(uint32_t (&r)[4], const __nv_bfloat16* tile, int outer, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8, row = lane % 8;
  const int along_k = k_bit == 1 ? matrix >> 1 : matrix & 1, along_outer = k_bit == 1 ? matrix & 1 : matrix >> 1;
  if constexpr (k_contiguous) {
    load_matrices(r, tile + chunk_offset<true>(outer + along_outer * 8 + row, k / 8 + along_k));
  } else {
    load_matrices_transposed(r, tile + chunk_offset<false>(k + along_k * 8 + row, outer / 8 + along_outer));
  }
}

template <bool a_k_contiguous, bool b_k_contiguous, bool wide>
__global__ void __launch_bounds__(threads, 2) gemm_mma_kernel(const __grid_constant__ GemmArgs g) {
  extern __shared__ __align__(128) __nv_bfloat16 shared[];
  GemmTile tile;
  if (!find_tile(g, blockIdx.y, blockIdx.x, static_cast<int>(blockIdx.z), tile_rows, tile_cols, tile)) return;
  const auto* const a = static_cast<const __nv_bfloat16*>(g.a);
  const auto* const b = static_cast<const __nv_bfloat16*>(g.b) + tile.b_offset;
  const int steps = static_cast<int>((tile.k_end - tile.k + tile_k - 1) / tile_k);

  const auto load_stage = [&](int step) {
    if (step < steps) {
      __nv_bfloat16* const at = shared + step % stages * 2 * operand_elements;
      const int64_t k = tile.k + static_cast<int64_t>(step) * tile_k;
      load_operand<a_k_contiguous, wide>(at, a, g.lda, tile.row, tile.row_end, k, tile.k_end);
      load_operand<b_k_contiguous, wide>(at + operand_elements, b, g.ldb, tile.col, g.n, k, tile.k_end);
    }
    commit_copies();
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp / 4 * warp_rows, col = warp % 4 * warp_cols;
  float sums[warp_rows / 16][warp_cols / 8][4] = {};

#pragma unroll
  for (int s = 0; s < stages - 1; ++s) load_stage(s);
  for (int step = 0; step < steps; ++step) {
    wait_copies<stages - 2>();
    // Also keeps the stage that is loaded next from being overwritten while a warp still reads it.
    __syncthreads();
    load_stage(step + stages - 1);
    const __nv_bfloat16* const tile_a = shared + step % stages * 2 * operand_elements;
    const __nv_bfloat16* const tile_b = tile_a + operand_elements;
#pragma unroll
    for (int k = 0; k < tile_k; k += 16) {
      uint32_t fa[warp_rows / 16][4], fb[warp_cols / 16][4];
#pragma unroll
      for (int i = 0; i < warp_rows / 16; ++i) load_fragment<a_k_contiguous, 1>(fa[i], tile_a, row + 16 * i, k);
#pragma unroll
      for (int j = 0; j < warp_cols / 16; ++j) load_fragment<b_k_contiguous, 0>(fb[j], tile_b, col + 16 * j, k);
#pragma unroll
      for (int i = 0; i < warp_rows / 16; ++i) {
#pragma unroll
        for (int j = 0; j < warp_cols / 8; ++j) {
          multiply_add(sums[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  const bool pairs = g.n % 2 == 0;
#pragma unroll
  for (int i = 0; i < warp_rows / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t r = tile.row + row + 16 * i + 8 * half + lane / 4;
      if (r >= tile.row_end) continue;
      const int64_t c = tile.col + col + lane % 4 * 2;
      float2 old[warp_cols / 8];
#pragma unroll
      for (int j = 0; j < warp_cols / 8; ++j) old[j] = old_pair(g, tile, r, c + 8 * j, pairs);
#pragma unroll
      for (int j = 0; j < warp_cols / 8; ++j) {
        store_pair(g, tile, r, c + 8 * j, sums[i][j][2 * half], sums[i][j][2 * half + 1], old[j], pairs);
      }
    }
  }
}

bool is_wide(const Operand& x, int64_t group_stride) {
  return reinterpret_cast<uintptr_t>(x.data.data) % 16 == 0 && x.ld % 8 == 0 && group_stride % 8 == 0;
}

template <bool a_k_contiguous, bool b_k_contiguous, bool wide>
void launch(const Exec& exec, const Gemm& gemm, dim3 grid) {
  const auto kernel = gemm_mma_kernel<a_k_contiguous, b_k_contiguous, wide>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "gemm_mma");
  kernel<<<grid, threads, shared_bytes, stream_of(exec)>>>(GemmArgs(gemm));
  check_launch("gemm_mma");
}

template <bool a_k_contiguous, bool b_k_contiguous>
void launch(const Exec& exec, const Gemm& gemm, dim3 grid) {
  const bool wide = is_wide(gemm.a, 0) && is_wide(gemm.b, gemm.grouped_by == GroupedBy::rows ? gemm.n * gemm.k : 0);
  if (wide) return launch<a_k_contiguous, b_k_contiguous, true>(exec, gemm, grid);
  launch<a_k_contiguous, b_k_contiguous, false>(exec, gemm, grid);
}

}  // namespace

void gemm_mma(const Exec& exec, const Gemm& gemm) {
  if (gemm.m == 0 || gemm.n == 0) return;
  const dim3 grid(static_cast<unsigned>((gemm.n + tile_cols - 1) / tile_cols),
                  static_cast<unsigned>(row_tiles(gemm, tile_rows)),
                  gemm.grouped_by == GroupedBy::k ? static_cast<unsigned>(gemm.groups) : 1);
  if (!gemm.a.k_contiguous) return launch<false, false>(exec, gemm, grid);
  if (gemm.b.k_contiguous) return launch<true, true>(exec, gemm, grid);
  launch<true, false>(exec, gemm, grid);
}

}  // namespace caravan::cuda
