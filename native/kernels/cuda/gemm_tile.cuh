// Which part of C a block of a GEMM kernel computes, found on the device, and how it is written.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/gemm.h"

namespace caravan::cuda {

/// What a GEMM kernel is told: Gemm with raw pointers.
struct GemmArgs {
  const void* a;
  const void* b;
  void* c;
  const float* bias;
  const int32_t* offsets;
  int64_t m, n, k;
  int64_t lda, ldb;
  float scale;
  bool accumulate;
  bool c_is_bf16;
  GroupedBy grouped_by;
  int groups;

  explicit GemmArgs(const Gemm& g)
      : a(g.a.data.data),
        b(g.b.data.data),
        c(g.c.data),
        bias(g.bias),
        offsets(g.offsets),
        m(g.m),
        n(g.n),
        k(g.k),
        lda(g.a.ld),
        ldb(g.b.ld),
        scale(g.scale),
        accumulate(g.accumulate),
        c_is_bf16(g.c.dtype == DType::bf16),
        grouped_by(g.grouped_by),
        groups(static_cast<int>(g.groups)) {}
};

/// Rows [row, row_end) of A and C, from row on as many as the tile has; columns from `col`; k in [k, k_end).
struct GemmTile {
  int64_t row, row_end;
  int64_t col;
  int64_t k, k_end;
  int64_t b_offset;  // elements from B's start to this group's
  int64_t c_offset;  // elements from C's start to this group's
};

/// Tiles of rows that a launch needs at most: each group may begin one more than its rows fill.
inline int64_t row_tiles(const Gemm& g, int64_t tile_rows) {
  const int64_t tiles = (g.m + tile_rows - 1) / tile_rows;
  return g.grouped_by == GroupedBy::rows ? tiles + g.groups : tiles;
}

/// False where the block has nothing to do: beyond the last group's tiles, or a group without rows.
__device__ inline bool find_tile(const GemmArgs& g, int64_t row_tile, int64_t col_tile, int group, int tile_rows,
                                 int tile_cols, GemmTile& tile) {
  tile = {row_tile * tile_rows, g.m, col_tile * tile_cols, 0, g.k, 0, 0};
  if (g.grouped_by == GroupedBy::none) return true;
  if (g.grouped_by == GroupedBy::k) {
    tile.k = g.offsets[group];
    tile.k_end = g.offsets[group + 1];
    tile.c_offset = group * g.m * g.n;
    return tile.k < tile.k_end;
  }
  int first = g.offsets[0];
  for (int i = 0; i < g.groups; ++i) {
    const int end = g.offsets[i + 1];
    const int tiles = (end - first + tile_rows - 1) / tile_rows;
    if (row_tile < tiles) {
      tile.row = first + row_tile * tile_rows;
      tile.row_end = end;
      tile.b_offset = i * g.n * g.k;
      return true;
    }
    row_tile -= tiles;
    first = end;
  }
  return false;
}

/// C(row, col) of the tile's group from the finished sum.
__device__ inline void store_element(const GemmArgs& g, const GemmTile& tile, int64_t row, int64_t col, float sum) {
  const int64_t at = tile.c_offset + row * g.n + col;
  float value = g.scale * sum + (g.bias == nullptr ? 0.0f : g.bias[col]);
  if (g.c_is_bf16) {
    __nv_bfloat16* const c = static_cast<__nv_bfloat16*>(g.c) + at;
    *c = __float2bfloat16_rn(g.accumulate ? value + __bfloat162float(*c) : value);
  } else {
    float* const c = static_cast<float*>(g.c) + at;
    *c = g.accumulate ? value + *c : value;
  }
}

/// What C(row, col) and C(row, col + 1) hold, where they are to be added to; else zeros. Read some pairs before storing
/// the first: a read behind a store waits for it. `wide` where C's rows keep a pair aligned.
__device__ inline float2 old_pair(const GemmArgs& g, const GemmTile& tile, int64_t row, int64_t col, bool wide) {
  if (!g.accumulate || !wide || col + 1 >= g.n) return {0.0f, 0.0f};
  const int64_t at = tile.c_offset + row * g.n + col;
  if (!g.c_is_bf16) return *reinterpret_cast<const float2*>(static_cast<const float*>(g.c) + at);
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(static_cast<const __nv_bfloat16*>(g.c) + at));
}

/// C(row, col) and C(row, col + 1), `old` being what old_pair said of them.
__device__ inline void store_pair(const GemmArgs& g, const GemmTile& tile, int64_t row, int64_t col, float first,
                                  float second, float2 old, bool wide) {
  if (!wide || col + 1 >= g.n) {
    if (col < g.n) store_element(g, tile, row, col, first);
    if (col + 1 < g.n) store_element(g, tile, row, col + 1, second);
    return;
  }
  const int64_t at = tile.c_offset + row * g.n + col;
  float2 value = {g.scale * first, g.scale * second};
  if (g.bias != nullptr) {
    value.x += g.bias[col];
    value.y += g.bias[col + 1];
  }
  if (g.accumulate) {
    value.x += old.x;
    value.y += old.y;
  }
  if (g.c_is_bf16) {
    *reinterpret_cast<__nv_bfloat162*>(static_cast<__nv_bfloat16*>(g.c) + at) = __float22bfloat162_rn(value);
  } else {
    *reinterpret_cast<float2*>(static_cast<float*>(g.c) + at) = value;
  }
}

}  // namespace caravan::cuda
