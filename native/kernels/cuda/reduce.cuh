// Sums and maxima over the threads of a warp or block, always in the same order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace caravan::cuda {

constexpr unsigned all_lanes = 0xffffffffu;

/// Every lane gets the sum.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(all_lanes, value, step));
  return value;
}

/// Every thread of a block of THREADS gets the sum. All of them must call; `scratch` holds one value a warp and may be
/// used again at once.
template <int THREADS, typename T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  static_assert(THREADS % 32 == 0);
  value = warp_sum(value);
  if constexpr (THREADS > 32) {
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    value = scratch[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; ++warp) value += scratch[warp];
    __syncthreads();
  }
  return value;
}

template <int THREADS>
__device__ __forceinline__ float block_max(float value, float* scratch) {
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / 32; ++warp) value = fmaxf(value, scratch[warp]);
  __syncthreads();
  return value;
}

}  // namespace caravan::cuda
