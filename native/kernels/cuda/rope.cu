#include "kernels/rope.h"

#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

namespace {

/// One pair (a, b) turned; products and sums are rounded apart, as on the CPU.
__device__ __forceinline__ void turn(float& a, float& b, float c, float s) {
  const float turned = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
  b = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  a = turned;
}

constexpr int token_threads = 128;

/// One block a token. A thread turns the same eight pairs of several heads, whose angles it reads once.
template <typename T>
__global__ void __launch_bounds__(token_threads)
    rope_packs_kernel(T* x, const float* cos, const float* sin, const int32_t* positions, int heads, int half,
                      bool inverse) {
  const int threads_per_head = half / pack, heads_at_once = token_threads / threads_per_head;
  const int first = static_cast<int>(threadIdx.x) / threads_per_head;
  if (first >= heads_at_once) return;
  const int i = static_cast<int>(threadIdx.x) % threads_per_head * pack;
  const int64_t angle = static_cast<int64_t>(positions[blockIdx.x]) * half + i;
  float c[pack], s[pack];
  load(c, cos + angle);
  load(s, sin + angle);
#pragma unroll
  for (int j = 0; j < pack; ++j) s[j] = inverse ? -s[j] : s[j];
  T* const token = x + static_cast<int64_t>(blockIdx.x) * heads * 2 * half + i;
#pragma unroll 2
  for (int head = first; head < heads; head += heads_at_once) {
    float a[pack], b[pack];
    T* const pairs = token + head * 2 * half;
    load(a, pairs);
    load(b, pairs + half);
#pragma unroll
    for (int j = 0; j < pack; ++j) turn(a[j], b[j], c[j], s[j]);
    store(pairs, a);
    store(pairs + half, b);
  }
}

/// Any head size and alignment: one thread a pair (i, i + D / 2) of one head.
template <typename T>
__global__ void rope_pairs_kernel(T* x, const float* cos, const float* sin, const int32_t* positions, int64_t pairs,
                                  int heads, int half, bool inverse) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= pairs) return;
  const int i = static_cast<int>(at % half);
  const int64_t head = at / half;
  const int64_t angle = static_cast<int64_t>(positions[head / heads]) * half + i;
  T* const pair = x + head * 2 * half + i;
  float a = static_cast<float>(pair[0]), b = static_cast<float>(pair[half]);
  turn(a, b, cos[angle], inverse ? -sin[angle] : sin[angle]);
  pair[0] = T(a);
  pair[half] = T(b);
}

}  // namespace

void rope_apply(const Exec& exec, Ptr x, const float* cos, const float* sin, const int32_t* positions, int64_t n,
                int64_t heads, int64_t head_dim, bool inverse) {
  const int64_t half = head_dim / 2, pairs = n * heads * half;
  if (pairs == 0) return;
  const bool packs = half % pack == 0 && half / pack <= token_threads && aligned16(x.as<char>(), cos, sin);
  dispatch(x.dtype, [&]<typename T>() {
    if (packs) {
      rope_packs_kernel<T><<<static_cast<unsigned>(n), token_threads, 0, stream_of(exec)>>>(
          x.as<T>(), cos, sin, positions, static_cast<int>(heads), static_cast<int>(half), inverse);
      return;
    }
    rope_pairs_kernel<T><<<blocks_for(pairs, element_threads), element_threads, 0, stream_of(exec)>>>(
        x.as<T>(), cos, sin, positions, pairs, static_cast<int>(heads), static_cast<int>(half), inverse);
  });
  check_launch("rope_apply");
}

}  // namespace caravan::cuda
