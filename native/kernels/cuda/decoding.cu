#include "kernels/decoding.h"

#include <cmath>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

namespace {

constexpr int append_threads = 256;

/// One block a conversation and half (keys, values).
template <typename Word>
__global__ void __launch_bounds__(append_threads)
    append_kernel(const CacheView* caches, const int32_t* positions, const Word* k, const Word* v, int64_t words) {
  const int64_t i = blockIdx.x;
  const Word* const from = (blockIdx.y == 0 ? k : v) + i * words;
  Word* const to = static_cast<Word*>(blockIdx.y == 0 ? caches[i].keys : caches[i].values) + positions[i] * words;
  for (int64_t j = threadIdx.x; j < words; j += append_threads) to[j] = from[j];
}

constexpr int choice_threads = 1024;

/// One block a row. A candidate is larger, or as large and earlier.
__global__ void __launch_bounds__(choice_threads)
    greedy_kernel(int32_t* ids, double* logprobs, const float* logits, int v) {
  __shared__ float largest[choice_threads / 32];
  __shared__ int first[choice_threads / 32];
  __shared__ double scratch[choice_threads / 32];
  const float* const x = logits + static_cast<int64_t>(blockIdx.x) * v;
  float best = -INFINITY;
  int at = v;
  bool is_nan = false;
  for (int i = threadIdx.x; i < v; i += choice_threads) {
    is_nan = is_nan || isnan(x[i]);
    if (x[i] > best || at == v) best = x[i], at = i;
  }
  const auto better = [](float a, int i, float b, int j) { return a > b || (a == b && i < j); };
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(all_lanes, best, step);
    const int other_at = __shfl_xor_sync(all_lanes, at, step);
    if (better(other, other_at, best, at)) best = other, at = other_at;
  }
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = best, first[threadIdx.x / 32] = at;
  is_nan = __syncthreads_or(is_nan);
  best = largest[0], at = first[0];
  for (int w = 1; w < choice_threads / 32; ++w) {
    if (better(largest[w], first[w], best, at)) best = largest[w], at = first[w];
  }
  double sum = 0.0;
  for (int i = threadIdx.x; i < v; i += choice_threads)
    sum += exp(static_cast<double>(x[i]) - static_cast<double>(best));
  sum = block_sum<choice_threads>(sum, scratch);
  if (threadIdx.x != 0) return;
  ids[blockIdx.x] = is_nan ? 0 : at;
  logprobs[blockIdx.x] = is_nan ? nan("") : -log(sum);
}

}  // namespace

void cache_append(const Exec& exec, const CacheView* caches, const int32_t* positions, ConstPtr k, ConstPtr v,
                  int64_t n, int64_t row_size) {
  if (n == 0) return;
  const dim3 grid(static_cast<unsigned>(n), 2);
  const int64_t bytes = row_size * static_cast<int64_t>(size_of(k.dtype));
  if (bytes % 16 == 0 && aligned16(k.as<char>(), v.as<char>())) {
    append_kernel<uint4>
        <<<grid, append_threads, 0, stream_of(exec)>>>(caches, positions, k.as<uint4>(), v.as<uint4>(), bytes / 16);
  } else {
    append_kernel<uint16_t><<<grid, append_threads, 0, stream_of(exec)>>>(caches, positions, k.as<uint16_t>(),
                                                                          v.as<uint16_t>(), bytes / 2);
  }
  check_launch("cache_append");
}

void greedy_choice(const Exec& exec, int32_t* ids, double* logprobs, const float* logits, int64_t n, int64_t v) {
  if (n == 0) return;
  greedy_kernel<<<static_cast<unsigned>(n), choice_threads, 0, stream_of(exec)>>>(ids, logprobs, logits,
                                                                                  static_cast<int>(v));
  check_launch("greedy_choice");
}

}  // namespace caravan::cuda
