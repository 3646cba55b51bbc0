// The bf16 form gives the tensor cores what they multiply best: 16 rows of W as mma's A, up to 8 rows of x as its B. The
// order of k within a product is free as long as both sides agree, so every lane takes what it loaded in one piece.
#include "kernels/cuda/gemv.h"

#include <cuda_bf16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemv_output.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace caravan::cuda {
namespace {

constexpr int warps = 8, threads = 32 * warps;
constexpr int rows_per_tile = 16;
constexpr int chunk = 128;  // k that a warp takes at a time: 32 for each lane of a row

enum class Source : uint8_t { f32, bf16, nf4, nf4_nested };

struct GemvArgs {
  GemvOutput output;
  const void* x;
  const void* dense;
  Nf4View nf4;
  const float* tables;     // the context's: 16 codes of NF4, 256 dynamic codes
  const int32_t* offsets;  // null: one group of n rows
  int64_t rows, cols;
  int n;
};

/// A lane's 32 elements of one row and chunk as they lie in memory: four quarters of 8, a quarter of the four lanes of a
/// row being neighbours.
template <typename T>
struct Piece {
  uint4 data[2 * sizeof(T)];

  __device__ static int column(int lane_in_row, int quarter) { return quarter * 32 + lane_in_row * 8; }

  /// The row from `first` on, of which `left` elements are W's; what lies beyond counts as zero.
  __device__ void load(const T* row, int64_t left, int lane_in_row) {
    constexpr int loads = sizeof(T) / 2;  // of 16 bytes, for a quarter
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int at = column(lane_in_row, q);
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        data[q * loads + i] = at < left ? load_streaming(row + at + 16 / sizeof(T) * i) : uint4{0, 0, 0, 0};
      }
    }
  }

  /// Pair j (elements 2j and 2j + 1, of 16 pairs) rounded to bf16.
  __device__ uint32_t value(int j) const {
    if constexpr (sizeof(T) == 2) {
      return (&data[j / 4].x)[j % 4];
    } else {
      const uint32_t* const words = &data[j / 2].x + j % 2 * 2;
      return pack_bf16(__uint_as_float(words[0]), __uint_as_float(words[1]));
    }
  }
};

/// T: of W, f32 or bf16. Its last chunk may be cut anywhere between quarters of lanes (8 columns).
template <typename T>
__global__ void __launch_bounds__(threads, 2) gemv_mma_kernel(const __grid_constant__ GemvArgs g) {
  __shared__ float sums[warps][rows_per_tile][gemv_rows + 1];
  const int first_row = g.offsets == nullptr ? 0 : g.offsets[blockIdx.y];
  const int end_row = g.offsets == nullptr ? g.n : g.offsets[blockIdx.y + 1];
  const T* const w = static_cast<const T*>(g.dense) + blockIdx.y * g.rows * g.cols;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int line = lane / 4, quad = lane % 4;
  const int chunks = static_cast<int>((g.cols + chunk - 1) / chunk);
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * rows_per_tile, row = tile + line;
  constexpr int batch = sizeof(T) == 4 ? 1 : 2;  // chunks under way at a time

  for (int x_row = first_row; x_row < end_row; x_row += static_cast<int>(gemv_rows)) {
    const bool has_x = x_row + line < end_row;
    const auto* const x = static_cast<const __nv_bfloat16*>(g.x) + (x_row + line) * g.cols;
    float sum[4] = {};
    for (int c0 = warp; c0 < chunks; c0 += warps * batch) {
      Piece<T> low[batch], high[batch];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int64_t first = static_cast<int64_t>(c0 + i * warps) * chunk, left = g.cols - first;
        low[i].load(w + row * g.cols + first, row < g.rows ? left : 0, quad);
        high[i].load(w + (row + 8) * g.cols + first, row + 8 < g.rows ? left : 0, quad);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int64_t first = static_cast<int64_t>(c0 + i * warps) * chunk;
        if (first >= g.cols) break;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int64_t column = first + Piece<T>::column(quad, q);
          uint4 v = {0, 0, 0, 0};
          if (has_x && column < g.cols) v = *reinterpret_cast<const uint4*>(x + column);
          const int j = 4 * q;
          multiply_add(sum, {low[i].value(j), high[i].value(j), low[i].value(j + 1), high[i].value(j + 1)}, v.x, v.y);
          multiply_add(sum, {low[i].value(j + 2), high[i].value(j + 2), low[i].value(j + 3), high[i].value(j + 3)}, v.z,
                       v.w);
        }
      }
    }
    sums[warp][line][2 * quad] = sum[0];
    sums[warp][line][2 * quad + 1] = sum[1];
    sums[warp][line + 8][2 * quad] = sum[2];
    sums[warp][line + 8][2 * quad + 1] = sum[3];
    __syncthreads();
    const int out_row = static_cast<int>(threadIdx.x) % rows_per_tile,
              n = static_cast<int>(threadIdx.x) / rows_per_tile;
    if (n < gemv_rows && x_row + n < end_row && tile + out_row < g.rows) {
      float total = 0.0f;
#pragma unroll
      for (int i = 0; i < warps; ++i) total += sums[i][out_row][n];
      g.output.store(x_row + n, tile + out_row, total);
    }
    __syncthreads();
  }
}

/// Any type and size, in fp32: one block for each row of W.
template <typename X, Source source>
__global__ void __launch_bounds__(threads) gemv_simt_kernel(const __grid_constant__ GemvArgs g) {
  __shared__ float sums[warps][gemv_rows];
  const int first_row = g.offsets == nullptr ? 0 : g.offsets[blockIdx.y];
  const int end_row = g.offsets == nullptr ? g.n : g.offsets[blockIdx.y + 1];
  const int64_t o = blockIdx.x;
  const int64_t at = (blockIdx.y * g.rows + o) * g.cols;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int x_row = first_row; x_row < end_row; x_row += static_cast<int>(gemv_rows)) {
    const int n = end_row - x_row < gemv_rows ? end_row - x_row : static_cast<int>(gemv_rows);
    const X* const x = static_cast<const X*>(g.x) + x_row * g.cols;
    float sum[gemv_rows] = {};
    for (int64_t k = threadIdx.x; k < g.cols; k += threads) {
      float w;
      if constexpr (source == Source::f32) {
        w = static_cast<const float*>(g.dense)[at + k];
      } else if constexpr (source == Source::bf16) {
        w = static_cast<float>(static_cast<const bf16*>(g.dense)[at + k]);
      } else {
        const int64_t block = (at + k) / nf4_block;
        float absmax;
        if constexpr (source == Source::nf4) {
          absmax = g.nf4.absmax[block];
        } else {
          absmax = __fadd_rn(__fmul_rn(g.tables[16 + g.nf4.absmax_u8[block]], g.nf4.absmax2[block / nf4_nested_block]),
                             g.nf4.offset);
        }
        const uint8_t byte = g.nf4.packed[(at + k) / 2];
        w = __fmul_rn(g.tables[(at + k) % 2 == 0 ? byte >> 4 : byte & 15], absmax);
      }
      if constexpr (sizeof(X) == 2) w = static_cast<float>(bf16(w));
#pragma unroll
      for (int i = 0; i < gemv_rows; ++i) {
        if (i < n) sum[i] = fmaf(static_cast<float>(x[i * g.cols + k]), w, sum[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < gemv_rows; ++i) {
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) sum[i] += __shfl_xor_sync(~0u, sum[i], distance);
      if (lane == 0) sums[warp][i] = sum[i];
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < n) {
      float total = 0.0f;
      for (int w = 0; w < warps; ++w) total += sums[w][threadIdx.x];
      g.output.store(x_row + static_cast<int>(threadIdx.x), o, total);
    }
    __syncthreads();
  }
}

template <typename F>
void with_source(const Weight& w, F&& f) {
  if (w.nf4 == nullptr) {
    w.dense.dtype == DType::f32 ? f.template operator()<Source::f32>() : f.template operator()<Source::bf16>();
  } else {
    w.nf4->absmax != nullptr ? f.template operator()<Source::nf4>() : f.template operator()<Source::nf4_nested>();
  }
}

bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace

void gemv(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
          bool accumulate, const int32_t* offsets, int64_t groups) {
  if (n == 0 || w.rows == 0) return;
  if (w.nf4 != nullptr && gemv_nf4(exec, y, x, *w.nf4, bias, n, scale, accumulate)) return;
  GemvArgs g = {};
  g.output = {y.data, bias, w.rows, scale, accumulate, y.dtype == DType::bf16};
  g.x = x.data;
  g.dense = w.dense.data;
  if (w.nf4 != nullptr) g.nf4 = *w.nf4;
  g.tables = exec.cuda->nf4_tables();
  g.offsets = offsets;
  g.rows = w.rows;
  g.cols = w.cols;
  g.n = static_cast<int>(n);
  const auto y_blocks = static_cast<unsigned>(offsets == nullptr ? 1 : groups);
  if (w.nf4 == nullptr && x.dtype == DType::bf16 && w.cols % 8 == 0 && is_aligned(x.data) && is_aligned(w.dense.data)) {
    const dim3 grid(static_cast<unsigned>((w.rows + rows_per_tile - 1) / rows_per_tile), y_blocks);
    dispatch(w.dense.dtype, [&]<typename T>() {
      if constexpr (sizeof(T) == 4) {
        gemv_mma_kernel<float><<<grid, threads, 0, stream_of(exec)>>>(g);
      } else {
        gemv_mma_kernel<__nv_bfloat16><<<grid, threads, 0, stream_of(exec)>>>(g);
      }
    });
    return check_launch("gemv");
  }
  with_source(w, [&]<Source source>() {
    const dim3 grid(static_cast<unsigned>(w.rows), y_blocks);
    dispatch(x.dtype, [&]<typename X>() { gemv_simt_kernel<X, source><<<grid, threads, 0, stream_of(exec)>>>(g); });
  });
  check_launch("gemv");
}

}  // namespace caravan::cuda
