// The forward product of a few bf16 rows with an NF4 weight: what decoding spends its time on. Every multiprocessor takes
// tiles of 16 rows of W, its 32 warps share k; a lane loads 16 bytes, 32 neighbours of one row and half a block, looks up
// two values a byte, scales and rounds them, and hands them to mma as 16 rows of A against up to 8 rows of x.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/gemv_output.cuh"
#include "kernels/cuda/tensor_cores.cuh"

namespace caravan::cuda {
namespace {

constexpr int threads = 1024;
constexpr int tile_rows = 16;
constexpr int chunk = 128;  // k that a warp takes at a time: 32 for each of the four lanes of a row
constexpr int table_copies = 16;
constexpr int x_padding = 32;  // elements: neighbouring rows of x then begin in other banks
constexpr int sums_floats = threads / 32 * tile_rows * 8;
constexpr size_t table_bytes = 256 * table_copies * sizeof(float2) + 256 * sizeof(float);

struct Args {
  GemvOutput output;
  const __nv_bfloat16* x;
  Nf4View w;
  const float* tables;  // the context's: 16 codes, 256 dynamic codes
  int n;
  int rows_at_once;  // of x, as many as shared memory holds
  int k_warps;       // warps that share a tile's k: 8, 16 or 32
  int sum_buffers;   // 2 where there is room: a tile is then added up while the next is multiplied
};

/// A lane's part of one row and chunk as it lies in memory.
template <bool nested>
struct Piece {
  uint4 packed = {0, 0, 0, 0};
  float scale = 0.0f;  // absmax, or the second quantisation's
  int code = 0;

  __device__ void load(const Nf4View& w, int row, int row_block, int half, int row_blocks) {
    if (row >= w.rows || row_block >= row_blocks) {
      scale = 0.0f;
      code = -1;
      return;
    }
    const uint32_t block = static_cast<uint32_t>(row) * static_cast<uint32_t>(row_blocks) + row_block;
    packed = load_streaming(w.packed + size_t{block} * (nf4_block / 2) + half * 16);
    if constexpr (nested) {
      code = w.absmax_u8[block];
      scale = w.absmax2[block / nf4_nested_block];
    } else {
      scale = w.absmax[block];
    }
  }

  __device__ float absmax(const float* dynamic, float offset) const {
    if constexpr (!nested) return scale;
    return code < 0 ? 0.0f : __fadd_rn(__fmul_rn(dynamic[code], scale), offset);
  }
};

/// Byte j of a word, as the place of its pair of values in the table: 128 bytes for each byte's copies.
template <int j>
__device__ const float2& pair_of(const char* lane_table, uint32_t word) {
  const uint32_t place = (j == 0 ? word << 7 : word >> (8 * j - 7)) & 0x7f80;
  return *reinterpret_cast<const float2*>(lane_table + place);
}

template <int j>
__device__ uint32_t value_of(const char* lane_table, uint32_t word, float absmax) {
  const float2 pair = pair_of<j>(lane_table, word);
  return pack_bf16(pair.x * absmax, pair.y * absmax);
}

template <bool nested>
__global__ void __launch_bounds__(threads, 1) gemv_nf4_kernel(const __grid_constant__ Args g) {
  extern __shared__ __align__(128) char shared[];
  auto* const table = reinterpret_cast<float2*>(shared);
  auto* const dynamic = reinterpret_cast<float*>(table + 256 * table_copies);
  float* const sums = dynamic + 256;
  auto* const x = reinterpret_cast<__nv_bfloat16*>(sums + g.sum_buffers * sums_floats);
  const int cols = static_cast<int>(g.w.cols), row_blocks = cols / static_cast<int>(nf4_block);
  const int x_stride = (cols + chunk - 1) / chunk * chunk + x_padding;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int line = lane / 4, quad = lane % 4;
  const int team = warp / g.k_warps, k_warp = warp % g.k_warps, teams = threads / 32 / g.k_warps;
  const int chunks = (cols + chunk - 1) / chunk;
  const int tiles = static_cast<int>((g.w.rows + tile_rows - 1) / tile_rows);
  const int first_tile = static_cast<int>(blockIdx.x) + team * static_cast<int>(gridDim.x);
  const int tile_step = teams * static_cast<int>(gridDim.x);
  const int rounds = (chunks + g.k_warps - 1) / g.k_warps;
  const auto sync_team = [&] { asm volatile("bar.sync %0, %1;\n" ::"r"(1 + team), "r"(g.k_warps * 32) : "memory"); };

  Piece<nested> low, high;
  const auto load = [&](int tile, int round) {
    const int row = tile * tile_rows + line, row_block = (round * g.k_warps + k_warp) * 2 + quad / 2;
    low.load(g.w, row, row_block, quad % 2, row_blocks);
    high.load(g.w, row + 8, row_block, quad % 2, row_blocks);
  };
  load(first_tile, 0);  // under way while the tables are filled

  for (int i = static_cast<int>(threadIdx.x); i < 256 * table_copies; i += threads) {
    const int byte = i / table_copies;
    table[i] = {g.tables[byte >> 4], g.tables[byte & 15]};
  }
  if (threadIdx.x < 256) dynamic[threadIdx.x] = g.tables[16 + threadIdx.x];
  const char* const lane_table = shared + lane % table_copies * sizeof(float2);

  for (int x_row = 0; x_row < g.n; x_row += g.rows_at_once) {
    const int n = min(g.rows_at_once, g.n - x_row);
    if (x_row > 0) {
      __syncthreads();  // all have read the rows before
      load(first_tile, 0);
    }
    // A chunk's 16-byte pieces change places so that the four lanes of a row read neighbours.
    for (int r = 0; r < n; ++r) {
      for (int i = static_cast<int>(threadIdx.x); i < chunks * 16; i += threads) {
        const int col = i * 8;
        uint4 v = {0, 0, 0, 0};
        if (col < cols) v = *reinterpret_cast<const uint4*>(g.x + static_cast<int64_t>(x_row + r) * cols + col);
        const int place = (i & ~15) + (i & 3) * 4 + (i >> 2 & 3);
        *reinterpret_cast<uint4*>(x + r * x_stride + place * 8) = v;
      }
    }
    __syncthreads();
    const __nv_bfloat16* const own_x = x + line * x_stride + quad * 8;

    int buffer = 0;
    for (int tile = first_tile; tile < tiles; tile += tile_step) {
      float sum[4] = {};
      for (int round = 0; round < rounds; ++round) {
        const uint32_t a[4] = {low.packed.x, low.packed.y, low.packed.z, low.packed.w};
        const uint32_t b[4] = {high.packed.x, high.packed.y, high.packed.z, high.packed.w};
        const float low_absmax = low.absmax(dynamic, g.w.offset), high_absmax = high.absmax(dynamic, g.w.offset);
        const int first = (round * g.k_warps + k_warp) * chunk;
        round + 1 < rounds ? load(tile, round + 1) : load(tile + tile_step, 0);
        if (first >= cols) continue;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          uint4 v = {0, 0, 0, 0};
          if (line < n) v = *reinterpret_cast<const uint4*>(own_x + first + q * 32);
          multiply_add(sum,
                       {value_of<0>(lane_table, a[q], low_absmax), value_of<0>(lane_table, b[q], high_absmax),
                        value_of<1>(lane_table, a[q], low_absmax), value_of<1>(lane_table, b[q], high_absmax)},
                       v.x, v.y);
          multiply_add(sum,
                       {value_of<2>(lane_table, a[q], low_absmax), value_of<2>(lane_table, b[q], high_absmax),
                        value_of<3>(lane_table, a[q], low_absmax), value_of<3>(lane_table, b[q], high_absmax)},
                       v.z, v.w);
        }
      }
      float* const team_sums = sums + buffer * sums_floats + team * g.k_warps * tile_rows * 8;
      float* const own_sums = team_sums + k_warp * tile_rows * 8;
      *reinterpret_cast<float2*>(own_sums + line * 8 + 2 * quad) = {sum[0], sum[1]};
      *reinterpret_cast<float2*>(own_sums + (line + 8) * 8 + 2 * quad) = {sum[2], sum[3]};
      sync_team();
      const int at = k_warp * 32 + lane, out = at / 8, row = at % 8;
      const int64_t col = static_cast<int64_t>(tile) * tile_rows + out;
      if (at < tile_rows * 8 && row < n && col < g.w.rows) {
        float total = 0.0f;
#pragma unroll 8
        for (int w = 0; w < g.k_warps; ++w) total += team_sums[w * tile_rows * 8 + at];
        g.output.store(x_row + row, col, total);
      }
      if (g.sum_buffers == 2) {
        buffer ^= 1;
      } else {
        sync_team();
      }
    }
  }
}

}  // namespace

bool gemv_nf4(const Exec& exec, Ptr y, ConstPtr x, const Nf4View& w, const float* bias, int64_t n, float scale,
              bool accumulate) {
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  if (x.dtype != DType::bf16 || w.cols % nf4_block != 0 || !aligned(x.data) || !aligned(w.packed)) return false;
  const int64_t chunks = (w.cols + chunk - 1) / chunk;
  const size_t x_bytes = static_cast<size_t>(chunks * chunk + x_padding) * sizeof(__nv_bfloat16);
  const size_t fixed = table_bytes + sums_floats * sizeof(float), room = exec.cuda->max_shared_memory();
  if (fixed + x_bytes > room) return false;
  Args g = {};
  g.output = {y.data, bias, w.rows, scale, accumulate, y.dtype == DType::bf16};
  g.x = static_cast<const __nv_bfloat16*>(x.data);
  g.w = w;
  g.tables = exec.cuda->nf4_tables();
  g.n = static_cast<int>(n);
  g.rows_at_once = static_cast<int>(std::min<size_t>(static_cast<size_t>(n), (room - fixed) / x_bytes));
  g.k_warps = chunks >= 32 ? 32 : chunks >= 16 ? 16 : 8;
  const size_t with_x = fixed + static_cast<size_t>(g.rows_at_once) * x_bytes;
  g.sum_buffers = with_x + sums_floats * sizeof(float) <= room ? 2 : 1;
  const size_t shared_bytes = with_x + static_cast<size_t>(g.sum_buffers - 1) * sums_floats * sizeof(float);
  const int64_t tiles = (w.rows + tile_rows - 1) / tile_rows;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(tiles, exec.cuda->multiprocessors()));
  const auto kernel = w.absmax_u8 != nullptr ? gemv_nf4_kernel<true> : gemv_nf4_kernel<false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "gemv_nf4");
  kernel<<<blocks, threads, shared_bytes, stream_of(exec)>>>(g);
  check_launch("gemv_nf4");
  return true;
}

}  // namespace caravan::cuda
