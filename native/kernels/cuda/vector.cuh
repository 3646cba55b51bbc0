// Several elements in one access, and loops over all elements of an array by such accesses.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan::cuda {

/// Elements that a thread moves at a time: 16 bytes of bf16, twice that of f32.
constexpr int pack = 8;

template <typename T>
__device__ __forceinline__ T rounded(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return bf16::from_bits(__bfloat16_as_ushort(__float2bfloat16_rn(value)));
  }
}

/// N elements from `from`, which is aligned to them all.
template <int N>
__device__ __forceinline__ void load(float (&to)[N], const float* from) {
  if constexpr (N == 1) {
    to[0] = *from;
  } else {
    static_assert(N % 4 == 0);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 part = *reinterpret_cast<const float4*>(from + i);
      to[i] = part.x, to[i + 1] = part.y, to[i + 2] = part.z, to[i + 3] = part.w;
    }
  }
}

__device__ __forceinline__ float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

template <int N>
__device__ __forceinline__ void load(float (&to)[N], const bf16* from) {
  if constexpr (N == 1) {
    to[0] = static_cast<float>(*from);
  } else if constexpr (N == 4) {
    const uint2 part = *reinterpret_cast<const uint2*>(from);
    to[0] = low_half(part.x), to[1] = high_half(part.x), to[2] = low_half(part.y), to[3] = high_half(part.y);
  } else {
    static_assert(N == 8);
    const uint4 part = *reinterpret_cast<const uint4*>(from);
    to[0] = low_half(part.x), to[1] = high_half(part.x), to[2] = low_half(part.y), to[3] = high_half(part.y);
    to[4] = low_half(part.z), to[5] = high_half(part.z), to[6] = low_half(part.w), to[7] = high_half(part.w);
  }
}

template <int N>
__device__ __forceinline__ void store(float* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
  }
}

__device__ __forceinline__ uint32_t round_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

template <int N>
__device__ __forceinline__ void store(bf16* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = rounded<bf16>(from[0]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(round_pair(from[0], from[1]), round_pair(from[2], from[3]));
  } else {
    static_assert(N == 8);
    *reinterpret_cast<uint4*>(to) = make_uint4(round_pair(from[0], from[1]), round_pair(from[2], from[3]),
                                               round_pair(from[4], from[5]), round_pair(from[6], from[7]));
  }
}

/// Whether 16-byte accesses may begin at all of these.
template <typename... P>
bool aligned16(const P*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

inline unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

constexpr int element_threads = 256;

template <int width, typename F>
__global__ void __launch_bounds__(element_threads) each_element_kernel(F f, int64_t packs, int64_t count) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * element_threads + threadIdx.x;
  if (at < packs) {
    f.template at<width>(at * width);
  } else if (packs * width + (at - packs) < count) {
    f.template at<1>(packs * width + (at - packs));
  }
}

/// f.at<N>(i) for elements i .. i + N - 1 of `count`: N is `width` where `vector` says that they are aligned, else 1.
template <int width = pack, typename F>
void each_element(const Exec& exec, const F& f, int64_t count, bool vector, const char* operation) {
  if (count == 0) return;
  const int64_t packs = vector ? count / width : 0;
  const unsigned blocks = blocks_for(packs + (count - packs * width), element_threads);
  each_element_kernel<width><<<blocks, element_threads, 0, stream_of(exec)>>>(f, packs, count);
  check_launch(operation);
}

}  // namespace caravan::cuda
