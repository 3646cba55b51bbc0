// bf16 products on Hopper: a producer warp has the copy engine fill shared memory some stages ahead, two warpgroups
// multiply out of it with wgmma, 64 rows of the tile each.
#include <cuda_bf16.h>

#include <algorithm>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm_tile.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace caravan::cuda {
namespace {

constexpr int tile_rows = 128, tile_k = 64;
constexpr int consumers = 256, threads = consumers + 32;
constexpr int a_bytes = tile_rows * tile_k * 2;
constexpr int box_bytes = 64 * tile_k * 2;  // of an operand that is not k-contiguous: 64 columns of 64 k

/// Wide tiles read the operands less often; two blocks of narrow ones share a multiprocessor, so that one multiplies
/// while the other writes.
template <int tile_cols>
struct Shape {
  static constexpr int stages = tile_cols == 256 ? 4 : 3;
  static constexpr int blocks = tile_cols == 256 ? 1 : 2;  // on a multiprocessor
  static constexpr int b_bytes = tile_cols * tile_k * 2;
  static constexpr int stage_bytes = a_bytes + b_bytes;
  static constexpr size_t shared_bytes = static_cast<size_t>(stages) * stage_bytes + 1024;  // 1024 to align by
};

struct TensorMaps {
  CUtensorMap a;
  CUtensorMap b;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ void sync_consumers() { asm volatile("bar.sync 1, %0;\n" ::"n"(consumers) : "memory"); }

/// Zeros the k rows [first, 64) of boxes of 64 rows of 128 bytes: what a group's last tile holds of the next group.
__device__ void clear_rows(char* boxes, int count, int first) {
  const int words = (tile_k - first) * 8;  // of 16 bytes, in one box
  for (int i = static_cast<int>(threadIdx.x); i < words * count; i += consumers) {
    *reinterpret_cast<uint4*>(boxes + i / words * box_bytes + first * 128 + i % words * 16) = {0, 0, 0, 0};
  }
}

/// The tile as bf16, whole rows of 16-byte pieces, by way of shared memory. Rows of n * 2 bytes must keep 16 aligned.
template <int tile_cols>
__device__ void store_rows(const GemmArgs& g, const GemmTile& tile, const float (&sums)[tile_cols / 2], char* shared) {
  constexpr int padded = tile_cols + 8;  // elements; rows of a fragment then lie in different banks
  const int group = static_cast<int>(threadIdx.x) / 128, warp = static_cast<int>(threadIdx.x) % 128 / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* const own = reinterpret_cast<__nv_bfloat16*>(shared) + (group * 64 + warp * 16) * padded;  // the warp's 16 rows
#pragma unroll
  for (int j = 0; j < tile_cols / 8; ++j) {
    const int col = 8 * j + lane % 4 * 2;
    float2 bias = {0.0f, 0.0f};
    if (g.bias != nullptr && tile.col + col < g.n) bias = {g.bias[tile.col + col], g.bias[tile.col + col + 1]};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 value = {g.scale * sums[4 * j + 2 * half] + bias.x, g.scale * sums[4 * j + 2 * half + 1] + bias.y};
      *reinterpret_cast<__nv_bfloat162*>(own + (lane / 4 + 8 * half) * padded + col) = __float22bfloat162_rn(value);
    }
  }
  __syncwarp();
  constexpr int pieces = tile_cols / 8;
#pragma unroll 4
  for (int i = lane; i < 16 * pieces; i += 32) {
    const int line = i / pieces, col = i % pieces * 8;
    const int64_t row = tile.row + group * 64 + warp * 16 + line;
    if (row >= tile.row_end || tile.col + col >= g.n) continue;
    auto* const c = static_cast<__nv_bfloat16*>(g.c) + tile.c_offset + row * g.n + tile.col + col;
    *reinterpret_cast<uint4*>(c) = *reinterpret_cast<const uint4*>(own + line * padded + col);
  }
}

template <int tile_cols, bool a_k_contiguous, bool b_k_contiguous>
__device__ void produce(const GemmArgs& g, const TensorMaps& maps, const GemmTile& tile, int steps, char* shared,
                        uint64_t* full, uint64_t* empty) {
  using S = Shape<tile_cols>;
  const int row = static_cast<int>(tile.row), col = static_cast<int>(tile.col);
  // Groups of B follow each other along its outer dimension (n) or along k.
  const int group = g.grouped_by == GroupedBy::rows ? static_cast<int>(tile.b_offset / (g.n * g.k)) : 0;
  const int b_outer = b_k_contiguous ? group * static_cast<int>(g.n) + col : col;
  const int b_k = b_k_contiguous ? 0 : group * static_cast<int>(g.k);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % S::stages;
    hopper::barrier_wait(&empty[stage], (step / S::stages & 1) ^ 1);
    hopper::barrier_expect(&full[stage], S::stage_bytes);
    char* const a = shared + stage * S::stage_bytes;
    char* const b = a + a_bytes;
    const int k = static_cast<int>(tile.k) + step * tile_k;
    if constexpr (a_k_contiguous) {
      hopper::copy_box(a, maps.a, k, row, &full[stage]);
    } else {
      for (int i = 0; i < tile_rows / 64; ++i)
        hopper::copy_box(a + i * box_bytes, maps.a, row + 64 * i, k, &full[stage]);
    }
    if constexpr (b_k_contiguous) {
      hopper::copy_box(b, maps.b, k, b_outer, &full[stage]);
    } else {
      for (int i = 0; i < tile_cols / 64; ++i) {
        hopper::copy_box(b + i * box_bytes, maps.b, b_outer + 64 * i, b_k + k, &full[stage]);
      }
    }
  }
}

#endif

template <int tile_cols, bool a_k_contiguous, bool b_k_contiguous>
__global__ void __launch_bounds__(threads, Shape<tile_cols>::blocks)
    gemm_wgmma_kernel(const __grid_constant__ GemmArgs g, const __grid_constant__ TensorMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = Shape<tile_cols>;
  extern __shared__ char unaligned[];
  __shared__ uint64_t full[S::stages], empty[S::stages];
  GemmTile tile;
  if (!find_tile(g, blockIdx.y, blockIdx.x, static_cast<int>(blockIdx.z), tile_rows, tile_cols, tile)) return;
  char* const shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::stages; ++i) {
      hopper::barrier_init(&full[i], 1);
      hopper::barrier_init(&empty[i], consumers / 128);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    hopper::fence_shared();
  }
  __syncthreads();
  const int steps = static_cast<int>((tile.k_end - tile.k + tile_k - 1) / tile_k);

  if (threadIdx.x >= consumers) {
    if (threadIdx.x == consumers) {
      produce<tile_cols, a_k_contiguous, b_k_contiguous>(g, maps, tile, steps, shared, full, empty);
    }
    return;
  }

  const int group = static_cast<int>(threadIdx.x) / 128;
  float sums[tile_cols / 2] = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % S::stages;
    char* const a = shared + stage * S::stage_bytes;
    char* const b = a + a_bytes;
    hopper::barrier_wait(&full[stage], step / S::stages & 1);
    if constexpr (!a_k_contiguous) {
      const auto valid = static_cast<int>(tile.k_end - tile.k) - step * tile_k;
      if (valid < tile_k) {
        clear_rows(a, tile_rows / 64, valid);
        clear_rows(b, tile_cols / 64, valid);
        hopper::fence_shared();
        sync_consumers();
      }
    }
    hopper::wgmma_begin();
#pragma unroll
    for (int k = 0; k < tile_k / 16; ++k) {
      // 64 rows are 8192 bytes in either layout; 16 k are 32 bytes of each row, or 16 rows.
      const char* const own_a = a + group * 8192 + k * (a_k_contiguous ? 32 : 2048);
      const char* const all_b = b + k * (b_k_contiguous ? 32 : 2048);
      hopper::wgmma<!a_k_contiguous, !b_k_contiguous>(sums, hopper::matrix_descriptor(own_a, box_bytes),
                                                      hopper::matrix_descriptor(all_b, box_bytes));
    }
    hopper::wgmma_commit();
    // The step before has been read: its stage may be filled again.
    hopper::wgmma_wait<1>();
    if (step > 0 && threadIdx.x % 128 == 0) hopper::barrier_arrive(&empty[(step - 1) % S::stages]);
  }
  hopper::wgmma_wait<0>();

  if (g.c_is_bf16 && !g.accumulate && g.n % 8 == 0) {
    sync_consumers();  // both have read all of shared memory
    return store_rows<tile_cols>(g, tile, sums, shared);
  }
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const bool pairs = g.n % 2 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = tile.row + group * 64 + warp * 16 + lane / 4 + 8 * half;
    if (row >= tile.row_end) continue;
    constexpr int batch = 8;
#pragma unroll
    for (int first = 0; first < tile_cols / 8; first += batch) {
      const int64_t col = tile.col + 8 * first + lane % 4 * 2;
      float2 old[batch];
#pragma unroll
      for (int j = 0; j < batch; ++j) old[j] = old_pair(g, tile, row, col + 8 * j, pairs);
#pragma unroll
      for (int j = 0; j < batch; ++j) {
        const int at = 4 * (first + j) + 2 * half;
        store_pair(g, tile, row, col + 8 * j, sums[at], sums[at + 1], old[j], pairs);
      }
    }
  }
#endif
}

/// Boxes of 64 (contiguous) by `box_rows` of a row-major (rows, cols) matrix.
CUtensorMap tensor_map(const void* data, int64_t rows, int64_t cols, int box_rows) {
  return make_tensor_map(data, {cols, rows}, {64, box_rows});
}

template <int tile_cols, bool a_k_contiguous, bool b_k_contiguous>
void launch(const Exec& exec, const Gemm& g) {
  const int64_t b_groups = g.grouped_by == GroupedBy::rows ? g.groups : 1;
  TensorMaps maps;
  maps.a = a_k_contiguous ? tensor_map(g.a.data.data, g.m, g.k, tile_rows) : tensor_map(g.a.data.data, g.k, g.m, 64);
  maps.b = b_k_contiguous ? tensor_map(g.b.data.data, b_groups * g.n, g.k, tile_cols)
                          : tensor_map(g.b.data.data, b_groups * g.k, g.n, 64);
  const auto kernel = gemm_wgmma_kernel<tile_cols, a_k_contiguous, b_k_contiguous>;
  constexpr auto shared_bytes = static_cast<int>(Shape<tile_cols>::shared_bytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "gemm_wgmma");
  const dim3 grid(static_cast<unsigned>((g.n + tile_cols - 1) / tile_cols),
                  static_cast<unsigned>(row_tiles(g, tile_rows)),
                  g.grouped_by == GroupedBy::k ? static_cast<unsigned>(g.groups) : 1);
  kernel<<<grid, threads, shared_bytes, stream_of(exec)>>>(GemmArgs(g), maps);
  check_launch("gemm_wgmma");
}

template <int tile_cols>
void launch(const Exec& exec, const Gemm& g) {
  if (!g.a.k_contiguous) return launch<tile_cols, false, false>(exec, g);
  if (g.b.k_contiguous) return launch<tile_cols, true, true>(exec, g);
  launch<tile_cols, true, false>(exec, g);
}

bool fits(const Operand& x, int64_t contiguous) {
  return reinterpret_cast<uintptr_t>(x.data.data) % 16 == 0 && x.ld % 8 == 0 && x.ld == contiguous;
}

/// Long sums gain from wide tiles unless the last round of them leaves much of the device idle; short ones, and gradients,
/// which read what they add to, gain from a neighbour that multiplies meanwhile.
bool prefers_wide_tiles(const Exec& exec, const Gemm& g) {
  if (g.n < 256 || g.k < 2048 || g.grouped_by == GroupedBy::k) return false;
  const int64_t tiles = ((g.m + tile_rows - 1) / tile_rows + g.groups / 2) * ((g.n + 255) / 256);
  const int64_t device = exec.cuda->multiprocessors(), rounds = (tiles + device - 1) / device;
  return 10 * tiles >= 8 * rounds * device;
}

}  // namespace

bool gemm_wgmma(const Exec& exec, const Gemm& g) {
#ifdef CARAVAN_SM90A
  if (exec.cuda->compute_capability() != 90 || !exec.cuda->uses_wgmma() || g.m == 0 || g.n == 0 || g.k == 0)
    return false;
  if (!fits(g.a, g.a.k_contiguous ? g.k : g.m) || !fits(g.b, g.b.k_contiguous ? g.k : g.n)) return false;
  // A group's last step along k would read into the next group's weights.
  if (g.grouped_by == GroupedBy::rows && !g.b.k_contiguous && g.k % tile_k != 0) return false;
  if (std::max({g.m, g.n, g.k}) * std::max<int64_t>(g.groups, 1) > INT32_MAX) return false;  // coordinates
  prefers_wide_tiles(exec, g) ? launch<256>(exec, g) : launch<128>(exec, g);
  return true;
#else
  (void)exec, (void)g;
  return false;
#endif
}

}  // namespace caravan::cuda
