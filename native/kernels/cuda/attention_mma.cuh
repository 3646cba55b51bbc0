// Tiles of rows in shared memory as the tensor cores of sm_80 take them. A row of a tile is padded by 16 bytes, so that
// eight consecutive rows begin in different banks for every padded head size.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace caravan::cuda {

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Rows of one head in shared memory.
template <int dim>
constexpr int tile_stride = dim + 8;

/// Starts the copy of `rows` rows of a head, from row `first` of the array (.., heads, d) on; rows from `valid` on and
/// channels from d on become zeros.
template <int rows, int dim, int threads>
__device__ __forceinline__ void copy_tile(bf16* to, const bf16* from, int64_t first, int valid, int head, int heads,
                                          int d) {
  constexpr int pieces = dim / 8;
  const bf16* const base = from + (first * heads + head) * d;
#pragma unroll
  for (int i = threadIdx.x; i < rows * pieces; i += threads) {
    const int row = i / pieces, channel = i % pieces * 8;
    const bool real = row < valid && channel < d;
    copy_16(to + row * tile_stride<dim> + channel, real ? base + static_cast<int64_t>(row) * heads * d + channel : base,
            real ? 16 : 0);
  }
}

/// A operand (16 x 16) whose rows are rows of the tile: rows from `row`, channels from `channel` on.
template <int dim>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, int row, int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices(a, tile + (row + lane % 16) * tile_stride<dim> + channel + lane / 16 * 8);
}

/// Two B operands (16 x 8 each: b[0], b[1] and b[2], b[3]) of x tile^T: columns are rows of the tile from `row` on.
template <int dim>
__device__ __forceinline__ void load_b_across(uint32_t (&b)[4], const bf16* tile, int row, int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices(b, tile + (row + lane / 16 * 8 + lane % 8) * tile_stride<dim> + channel + lane / 8 % 2 * 8);
}

/// Two B operands of x tile: the sum runs over rows of the tile from `row` on, columns are channels.
template <int dim>
__device__ __forceinline__ void load_b_along(uint32_t (&b)[4], const bf16* tile, int row, int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices_transposed(b, tile + (row + lane / 8 % 2 * 8 + lane % 8) * tile_stride<dim> + channel + lane / 16 * 8);
}

/// scores (rows of a from `row`) x (rows of b): a b^T over all channels.
template <int dim, int mt, int columns>
__device__ __forceinline__ void multiply_across(float (&scores)[mt][columns / 8][4], const bf16* a, int row,
                                                const bf16* b) {
#pragma unroll
  for (int m = 0; m < mt; ++m) {
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][j][i] = 0.0f;
    }
  }
#pragma unroll
  for (int channel = 0; channel < dim; channel += 16) {
    uint32_t left[mt][4];
#pragma unroll
    for (int m = 0; m < mt; ++m) load_a<dim>(left[m], a, row + 16 * m, channel);
#pragma unroll
    for (int j = 0; j < columns; j += 16) {
      uint32_t right[4];
      load_b_across<dim>(right, b, j, channel);
#pragma unroll
      for (int m = 0; m < mt; ++m) {
        multiply_add(scores[m][j / 8], left[m], right[0], right[1]);
        multiply_add(scores[m][j / 8 + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// sums += bf16(weights) b, the sum running over the rows of b.
template <int dim, int mt, int columns>
__device__ __forceinline__ void multiply_along(float (&sums)[mt][dim / 8][4],
                                               const float (&weights)[mt][columns / 8][4], const bf16* b) {
#pragma unroll
  for (int j = 0; j < columns; j += 16) {
    uint32_t left[mt][4];
#pragma unroll
    for (int m = 0; m < mt; ++m) {
      const float(&low)[4] = weights[m][j / 8], (&high)[4] = weights[m][j / 8 + 1];
      left[m][0] = pack_bf16(low[0], low[1]);
      left[m][1] = pack_bf16(low[2], low[3]);
      left[m][2] = pack_bf16(high[0], high[1]);
      left[m][3] = pack_bf16(high[2], high[3]);
    }
#pragma unroll
    for (int channel = 0; channel < dim; channel += 16) {
      uint32_t right[4];
      load_b_along<dim>(right, b, j, channel);
#pragma unroll
      for (int m = 0; m < mt; ++m) {
        multiply_add(sums[m][channel / 8], left[m], right[0], right[1]);
        multiply_add(sums[m][channel / 8 + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// Sum or maximum over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/// Writes the two channels of a row that a lane holds.
__device__ __forceinline__ void store_pair(bf16* at, float low, float high) {
  *reinterpret_cast<uint32_t*>(at) = pack_bf16(low, high);
}

/// Calls f with the smallest head size that kernels are built for.
template <typename F>
void with_padded_dim(int64_t head_dim, F&& f) {
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 96) return f.template operator()<96>();
  if (head_dim <= 128) return f.template operator()<128>();
  return f.template operator()<256>();
}

}  // namespace caravan::cuda
