#include "kernels/moe.h"

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/dropout.h"

namespace caravan::cuda {

namespace {

constexpr int token_threads = 128;

// ---------------------------------------------------------------------------------------------------------------------
// Choice of experts: one thread a token

__global__ void __launch_bounds__(token_threads)
    router_topk_forward_kernel(int32_t* experts, float* weights, const float* router_logits, int64_t n, int num_experts,
                               int top_k) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * token_threads + threadIdx.x;
  if (t >= n) return;
  const float* const logits = router_logits + t * num_experts;
  int32_t* const chosen = experts + t * top_k;
  float* const w = weights + t * top_k;
  for (int k = 0; k < top_k; ++k) {
    int best = -1;
    float at_best = 0.0f;
    for (int e = 0; e < num_experts; ++e) {
      bool taken = false;
      for (int before = 0; before < k; ++before) taken = taken || chosen[before] == e;
      const float logit = logits[e];
      if (taken || (best >= 0 && !(logit > at_best))) continue;
      best = e;
      at_best = logit;
    }
    chosen[k] = best;
    w[k] = at_best;
  }
  const float largest = w[0];
  float sum = 0.0f;
  for (int k = 0; k < top_k; ++k) sum += w[k] = expf(w[k] - largest);
  for (int k = 0; k < top_k; ++k) w[k] /= sum;
}

__global__ void __launch_bounds__(token_threads)
    router_topk_backward_kernel(float* drouter_logits, const float* dweights, const int32_t* experts,
                                const float* weights, int64_t n, int num_experts, int top_k) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * token_threads + threadIdx.x;
  if (t >= n) return;
  float* const dlogits = drouter_logits + t * num_experts;
  for (int e = 0; e < num_experts; ++e) dlogits[e] = 0.0f;
  float dot = 0.0f;
  for (int k = 0; k < top_k; ++k) dot = __fadd_rn(dot, __fmul_rn(weights[t * top_k + k], dweights[t * top_k + k]));
  for (int k = 0; k < top_k; ++k) {
    dlogits[experts[t * top_k + k]] = weights[t * top_k + k] * (dweights[t * top_k + k] - dot);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Dispatch: one block, whose warps each take a contiguous part of the assignments, so that the sort is stable

constexpr int sort_threads = 1024;
constexpr int sort_warps = sort_threads / 32;

/// Calls body(assignment, expert, lanes of this warp with the same expert) for this warp's part, 32 at a time; expert is
/// -1 for what is excluded.
template <typename Body>
__device__ __forceinline__ void each_assignment(const int32_t* experts, const uint8_t* valid, int64_t assignments,
                                                int top_k, Body body) {
  const int64_t rounds = (assignments + sort_threads - 1) / sort_threads;
  const int64_t first = threadIdx.x / 32 * rounds * 32 + threadIdx.x % 32;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t a = first + round * 32;
    const bool there = a < assignments && (valid == nullptr || valid[a / top_k] != 0);
    const int32_t expert = there ? experts[a] : -1;
    body(a, expert, __match_any_sync(all_lanes, expert));
  }
}

__global__ void __launch_bounds__(sort_threads)
    moe_sort_kernel(int32_t* offsets, int32_t* source, const int32_t* experts, const uint8_t* valid,
                    int64_t assignments, int num_experts, int top_k) {
  extern __shared__ int32_t next[];  // (E, warps) first a count, then where the warp's next row of the expert goes
  int32_t* const totals = next + num_experts * sort_warps;  // (E)
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int i = threadIdx.x; i < num_experts * sort_warps; i += sort_threads) next[i] = 0;
  __syncthreads();
  each_assignment(experts, valid, assignments, top_k, [&](int64_t, int32_t expert, unsigned peers) {
    if (expert >= 0 && __ffs(peers) - 1 == lane) next[expert * sort_warps + warp] += __popc(peers);
    __syncwarp();
  });
  __syncthreads();
  for (int e = warp; e < num_experts; e += sort_warps) {
    const int32_t count = next[e * sort_warps + lane];
    int32_t until = count;
    for (int step = 1; step < 32; step *= 2) {
      const int32_t before = __shfl_up_sync(all_lanes, until, step);
      if (lane >= step) until += before;
    }
    next[e * sort_warps + lane] = until - count;
    if (lane == 31) totals[e] = until;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t sum = 0;
    for (int e = 0; e < num_experts; ++e) {
      const int32_t count = totals[e];
      offsets[e] = totals[e] = sum;
      sum += count;
    }
    offsets[num_experts] = sum;
  }
  __syncthreads();
  each_assignment(experts, valid, assignments, top_k, [&](int64_t a, int32_t expert, unsigned peers) {
    int32_t* const place = next + expert * sort_warps + warp;
    if (expert >= 0) source[totals[expert] + *place + __popc(peers & ((1u << lane) - 1))] = static_cast<int32_t>(a);
    __syncwarp();
    if (expert >= 0 && __ffs(peers) - 1 == lane) *place += __popc(peers);
    __syncwarp();
  });
}

__global__ void __launch_bounds__(token_threads) invert_kernel(int32_t* inverse, const int32_t* source, int64_t m) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * token_threads + threadIdx.x;
  if (r < m) inverse[source[r]] = static_cast<int32_t>(r);
}

// ---------------------------------------------------------------------------------------------------------------------
// Combination: products and sums are rounded apart, as on the CPU

/// Adds the rows of a token's slots in their order, times its weights where there are any.
template <int N, typename T>
__device__ __forceinline__ void sum_of_rows(float (&sum)[N], const T* rows, const float* weights,
                                            const int32_t* inverse, unsigned token, int64_t column, int64_t c,
                                            int top_k) {
  for (int k = 0; k < top_k; ++k) {
    const int64_t a = static_cast<int64_t>(token) * top_k + k;
    const int64_t row = inverse[a];
    if (row < 0) continue;
    const float w = weights == nullptr ? 1.0f : weights[a];
    float v[N];
    load(v, rows + row * c + column);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = __fadd_rn(sum[j], __fmul_rn(w, v[j]));
  }
}

template <typename T>
struct Combine {
  T* y;
  const T* expert_out;
  const float* weights;
  const int32_t* inverse;
  int64_t c;
  int top_k;
  float scale;

  template <int N>
  __device__ void at(unsigned token, int64_t column) const {
    float sum[N] = {}, v[N];
    sum_of_rows(sum, expert_out, weights, inverse, token, column, c, top_k);
    T* const to = y + token * c + column;
    load(v, to);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = __fadd_rn(v[j], __fmul_rn(scale, sum[j]));
    store(to, v);
  }
};

template <typename T>
struct CombineResidual {
  T* y;
  const T* stream;
  const T* branch;
  const T* expert_out;
  const float* weights;
  const int32_t* inverse;
  int64_t c;
  int top_k;
  float scale;

  template <int N>
  __device__ void at(unsigned token, int64_t column) const {
    float sum[N] = {}, v[N], added[N];
    const int64_t i = token * c + column;
    load(v, stream + i);
    load(added, branch + i);
    sum_of_rows(sum, expert_out, weights, inverse, token, column, c, top_k);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float both = static_cast<float>(rounded<T>(__fadd_rn(v[j], added[j])));
      v[j] = __fadd_rn(both, __fmul_rn(scale, sum[j]));
    }
    store(y + i, v);
  }
};

/// Bit j of the result: whether element j of the N from `column` on is kept. Packs begin at multiples of their size.
template <int N>
__device__ __forceinline__ uint32_t kept_of(const uint32_t* kept, unsigned row, int64_t column, int64_t c) {
  const uint32_t word = kept[row * kept_words(c) + column / 32] >> column % 32 / 2;
  if constexpr (N == 1) return word >> column % 2 * 16 & 1;
  uint32_t bits = 0;
#pragma unroll
  for (int j = 0; j < N; ++j) bits |= (word >> kept_bit(j) & 1) << j;
  return bits;
}

template <typename T>
struct GatherKept {
  T* out;
  const T* x;
  const int32_t* source;
  const uint32_t* kept;
  int64_t c;
  int top_k;
  float scale;

  template <int N>
  __device__ void at(unsigned row, int64_t column) const {
    const unsigned token = static_cast<unsigned>(source[row] / top_k);
    const uint32_t bits = kept_of<N>(kept, token, column, c);
    float v[N];
    load(v, x + token * c + column);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = (bits >> j & 1) != 0 ? __fmul_rn(v[j], scale) : 0.0f;
    store(out + row * c + column, v);
  }
};

template <typename T, bool masked>
struct GatherBackward {
  T* dx;
  const T* dy;
  const T* dgathered;
  const int32_t* inverse;
  const uint32_t* kept;
  int64_t c;
  int top_k;
  float scale;

  template <int N>
  __device__ void at(unsigned token, int64_t column) const {
    float sum[N] = {}, v[N];
    const int64_t i = token * c + column;
    load(v, dy + i);
    sum_of_rows(sum, dgathered, nullptr, inverse, token, column, c, top_k);
    uint32_t bits = 0;
    if constexpr (masked) bits = kept_of<N>(kept, token, column, c);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if constexpr (masked) {
        sum[j] = (bits >> j & 1) != 0 ? __fmul_rn(static_cast<float>(rounded<T>(sum[j])), scale) : 0.0f;
      }
      v[j] = __fadd_rn(v[j], sum[j]);
    }
    store(dx + i, v);
  }
};

/// One block a token: it reads dy once for all the token's slots.
template <typename T, int width>
__global__ void __launch_bounds__(token_threads)
    combine_backward_kernel(T* dexpert_out, float* dweights, const T* dy, const T* expert_out, const float* weights,
                            const int32_t* inverse, int64_t c, int top_k, float scale) {
  __shared__ float scratch[token_threads / 32];
  const T* const gradient = dy + blockIdx.x * c;
  for (int k = 0; k < top_k; ++k) {
    const int64_t a = static_cast<int64_t>(blockIdx.x) * top_k + k;
    const int64_t row = inverse[a];
    float dot = 0.0f;
    if (row >= 0) {
      const float w = scale * weights[a];
      for (int64_t i = static_cast<int64_t>(threadIdx.x) * width; i < c; i += token_threads * width) {
        float g[width], out[width];
        load(g, gradient + i);
        load(out, expert_out + row * c + i);
#pragma unroll
        for (int j = 0; j < width; ++j) {
          dot += g[j] * out[j];
          g[j] *= w;
        }
        store(dexpert_out + row * c + i, g);
      }
    }
    dot = block_sum<token_threads>(dot, scratch);
    if (threadIdx.x == 0) dweights[a] = scale * dot;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Balance loss

constexpr int balance_threads = 256;
constexpr int balance_warps = balance_threads / 32;

/// Largest logit of a token and the sum of exponentials: what its softmax needs.
struct RowSoftmax {
  float largest, sum;

  __device__ RowSoftmax(const float* logits, int num_experts) : largest(logits[0]), sum(0.0f) {
    for (int e = 1; e < num_experts; ++e) largest = fmaxf(largest, logits[e]);
    for (int e = 0; e < num_experts; ++e) sum += expf(logits[e] - largest);
  }
  __device__ float operator()(float logit) const { return expf(logit - largest) / sum; }
};

/// One block 256 tokens: partial (blocks, E) sums of their probabilities, and their assignments counted.
__global__ void __launch_bounds__(balance_threads)
    balance_partial_kernel(float* partial, int32_t* counts, const float* router_logits, const int32_t* experts,
                           const uint8_t* valid, int64_t n, int num_experts, int top_k) {
  extern __shared__ float by_warp[];  // (E, warps), then (E) counts
  int32_t* const counted = reinterpret_cast<int32_t*>(by_warp + num_experts * balance_warps);
  for (int e = threadIdx.x; e < num_experts; e += balance_threads) counted[e] = 0;
  __syncthreads();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * balance_threads + threadIdx.x;
  const bool there = t < n && (valid == nullptr || valid[t] != 0);
  const float* const logits = router_logits + (there ? t : 0) * num_experts;
  const RowSoftmax softmax(logits, num_experts);
  for (int e = 0; e < num_experts; ++e) {
    const float sum = warp_sum(there ? softmax(logits[e]) : 0.0f);
    if (threadIdx.x % 32 == 0) by_warp[e * balance_warps + threadIdx.x / 32] = sum;
  }
  // Sums of integers: their order does not matter.
  for (int k = 0; there && k < top_k; ++k) atomicAdd(counted + experts[t * top_k + k], 1);
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += balance_threads) {
    float sum = 0.0f;
    for (int warp = 0; warp < balance_warps; ++warp) sum += by_warp[e * balance_warps + warp];
    partial[static_cast<int64_t>(blockIdx.x) * num_experts + e] = sum;
    counts[static_cast<int64_t>(blockIdx.x) * num_experts + e] = counted[e];
  }
}

/// Valid tokens: each has top_k assignments.
__device__ __forceinline__ int64_t tokens_of(const int64_t* tokens_per_expert, int num_experts, int top_k) {
  int64_t assignments = 0;
  for (int e = 0; e < num_experts; ++e) assignments += tokens_per_expert[e];
  return assignments / top_k;
}

__global__ void __launch_bounds__(balance_threads)
    balance_finish_kernel(float* loss, int64_t* tokens_per_expert, float* mean_probability, const float* partial,
                          const int32_t* counts, int64_t blocks, int num_experts, int top_k) {
  // One warp an expert.
  for (int e = threadIdx.x / 32; e < num_experts; e += balance_warps) {
    float sum = 0.0f;
    int64_t count = 0;
    for (int64_t block = threadIdx.x % 32; block < blocks; block += 32) {
      sum += partial[block * num_experts + e];
      count += counts[block * num_experts + e];
    }
    sum = warp_sum(sum);
    count = warp_sum(count);
    if (threadIdx.x % 32 == 0) mean_probability[e] = sum, tokens_per_expert[e] = count;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int64_t tokens = tokens_of(tokens_per_expert, num_experts, top_k);
  float total = 0.0f;
  for (int e = 0; e < num_experts; ++e) {
    mean_probability[e] = tokens == 0 ? 0.0f : mean_probability[e] / static_cast<float>(tokens);
    if (tokens == 0) continue;
    const float share = static_cast<float>(tokens_per_expert[e]) / static_cast<float>(tokens * top_k);
    total += static_cast<float>(num_experts) * share * mean_probability[e];
  }
  *loss = total;
}

__global__ void __launch_bounds__(token_threads)
    balance_backward_kernel(float* drouter_logits, float coefficient, const float* router_logits,
                            const int64_t* tokens_per_expert, const uint8_t* valid, int64_t n, int num_experts,
                            int top_k) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * token_threads + threadIdx.x;
  if (t >= n || (valid != nullptr && valid[t] == 0)) return;
  const int64_t tokens = tokens_of(tokens_per_expert, num_experts, top_k);
  if (tokens == 0) return;
  const auto share = [&](int e) {
    return static_cast<float>(tokens_per_expert[e]) / static_cast<float>(tokens * top_k);
  };
  const float* const logits = router_logits + t * num_experts;
  const RowSoftmax softmax(logits, num_experts);
  float mean = 0.0f;
  for (int e = 0; e < num_experts; ++e) mean += share(e) * softmax(logits[e]);
  const float scale = coefficient * static_cast<float>(num_experts) / static_cast<float>(tokens);
  for (int e = 0; e < num_experts; ++e) {
    drouter_logits[t * num_experts + e] += scale * softmax(logits[e]) * (share(e) - mean);
  }
}

}  // namespace

void router_topk_forward(const Exec& exec, int32_t* experts, float* weights, const float* router_logits, int64_t n,
                         int64_t num_experts, int64_t top_k) {
  if (n == 0) return;
  router_topk_forward_kernel<<<blocks_for(n, token_threads), token_threads, 0, stream_of(exec)>>>(
      experts, weights, router_logits, n, static_cast<int>(num_experts), static_cast<int>(top_k));
  check_launch("router_topk_forward");
}

void router_topk_backward(const Exec& exec, float* drouter_logits, const float* dweights, const int32_t* experts,
                          const float* weights, int64_t n, int64_t num_experts, int64_t top_k) {
  if (n == 0) return;
  router_topk_backward_kernel<<<blocks_for(n, token_threads), token_threads, 0, stream_of(exec)>>>(
      drouter_logits, dweights, experts, weights, n, static_cast<int>(num_experts), static_cast<int>(top_k));
  check_launch("router_topk_backward");
}

void moe_sort(const Exec& exec, int32_t* offsets, int32_t* source, const int32_t* experts, const uint8_t* valid,
              int64_t n, int64_t num_experts, int64_t top_k) {
  const size_t shared = static_cast<size_t>(num_experts) * (sort_warps + 1) * sizeof(int32_t);
  if (shared > 48 * 1024) {
    check(cudaFuncSetAttribute(moe_sort_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
          "moe_sort: shared memory for so many experts");
  }
  moe_sort_kernel<<<1, sort_threads, shared, stream_of(exec)>>>(offsets, source, experts, valid, n * top_k,
                                                                static_cast<int>(num_experts), static_cast<int>(top_k));
  check_launch("moe_sort");
}

void moe_invert(const Exec& exec, int32_t* inverse, const int32_t* source, int64_t m, int64_t n, int64_t top_k) {
  check(cudaMemsetAsync(inverse, 0xff, static_cast<size_t>(n * top_k) * sizeof(int32_t), stream_of(exec)),
        "moe_invert");
  if (m == 0) return;
  invert_kernel<<<blocks_for(m, token_threads), token_threads, 0, stream_of(exec)>>>(inverse, source, m);
  check_launch("moe_invert");
}

void moe_gather(const Exec& exec, Ptr out, ConstPtr x, const int32_t* source, const uint32_t* kept, float keep_scale,
                int64_t m, int64_t c, int64_t top_k) {
  dispatch(x.dtype, [&]<typename T>() {
    const bool vector = aligned16(out.as<T>(), x.as<T>());
    const int k = static_cast<int>(top_k);
    if (kept == nullptr) {
      each_row(exec, GatherRows<T, T>{out.as<T>(), x.as<T>(), source, c, k}, m, c, vector, "moe_gather");
    } else {
      each_row(exec, GatherKept<T>{out.as<T>(), x.as<T>(), source, kept, c, k, keep_scale}, m, c, vector, "moe_gather");
    }
  });
}

void moe_gather_backward(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr dgathered, const int32_t* inverse,
                         const uint32_t* kept, float keep_scale, int64_t n, int64_t c, int64_t top_k) {
  dispatch(dx.dtype, [&]<typename T>() {
    const bool vector = aligned16(dx.as<T>(), dy.as<T>(), dgathered.as<T>());
    const auto run = [&]<bool masked>() {
      each_row(exec,
               GatherBackward<T, masked>{dx.as<T>(), dy.as<T>(), dgathered.as<T>(), inverse, kept, c,
                                         static_cast<int>(top_k), keep_scale},
               n, c, vector, "moe_gather_backward");
    };
    kept != nullptr ? run.template operator()<true>() : run.template operator()<false>();
  });
}

void moe_combine_residual(const Exec& exec, Ptr y, ConstPtr stream, ConstPtr branch, ConstPtr expert_out,
                          const float* weights, const int32_t* inverse, int64_t n, int64_t c, int64_t top_k,
                          float scale) {
  dispatch(y.dtype, [&]<typename T>() {
    const bool vector = aligned16(y.as<T>(), stream.as<T>(), branch.as<T>(), expert_out.as<T>());
    each_row(exec,
             CombineResidual<T>{y.as<T>(), stream.as<T>(), branch.as<T>(), expert_out.as<T>(), weights, inverse, c,
                                static_cast<int>(top_k), scale},
             n, c, vector, "moe_combine_residual");
  });
}

void moe_combine_forward(const Exec& exec, Ptr y, ConstPtr expert_out, const float* weights, const int32_t* inverse,
                         int64_t n, int64_t c, int64_t top_k, float scale) {
  dispatch(y.dtype, [&]<typename T>() {
    each_row(exec, Combine<T>{y.as<T>(), expert_out.as<T>(), weights, inverse, c, static_cast<int>(top_k), scale}, n, c,
             aligned16(y.as<T>(), expert_out.as<T>()), "moe_combine_forward");
  });
}

void moe_combine_backward(const Exec& exec, Ptr dexpert_out, float* dweights, ConstPtr dy, ConstPtr expert_out,
                          const float* weights, const int32_t*, const int32_t* inverse, int64_t n, int64_t, int64_t c,
                          int64_t top_k, float scale) {
  if (n == 0) return;
  dispatch(dy.dtype, [&]<typename T>() {
    const bool vector = c % pack == 0 && aligned16(dexpert_out.as<T>(), dy.as<T>(), expert_out.as<T>());
    const auto kernel = vector ? combine_backward_kernel<T, pack> : combine_backward_kernel<T, 1>;
    kernel<<<static_cast<unsigned>(n), token_threads, 0, stream_of(exec)>>>(dexpert_out.as<T>(), dweights, dy.as<T>(),
                                                                            expert_out.as<T>(), weights, inverse, c,
                                                                            static_cast<int>(top_k), scale);
  });
  check_launch("moe_combine_backward");
}

void balance_loss_forward(const Exec& exec, float* loss, int64_t* tokens_per_expert, float* mean_probability,
                          const float* router_logits, const int32_t* experts, const uint8_t* valid, int64_t n,
                          int64_t num_experts, int64_t top_k) {
  const int64_t blocks = (n + balance_threads - 1) / balance_threads;
  float* const partial = exec.cuda->workspace<float>(2 * blocks * num_experts + 1);
  int32_t* const counts = reinterpret_cast<int32_t*>(partial + blocks * num_experts);
  const int e = static_cast<int>(num_experts), k = static_cast<int>(top_k);
  if (blocks > 0) {
    const size_t shared = static_cast<size_t>(num_experts) * (balance_warps + 1) * sizeof(float);
    balance_partial_kernel<<<static_cast<unsigned>(blocks), balance_threads, shared, stream_of(exec)>>>(
        partial, counts, router_logits, experts, valid, n, e, k);
  }
  balance_finish_kernel<<<1, balance_threads, 0, stream_of(exec)>>>(loss, tokens_per_expert, mean_probability, partial,
                                                                    counts, blocks, e, k);
  check_launch("balance_loss_forward");
}

void balance_loss_backward(const Exec& exec, float* drouter_logits, float coefficient, const float* router_logits,
                           const int64_t* tokens_per_expert, const uint8_t* valid, int64_t n, int64_t num_experts,
                           int64_t top_k) {
  if (n == 0) return;
  balance_backward_kernel<<<blocks_for(n, token_threads), token_threads, 0, stream_of(exec)>>>(
      drouter_logits, coefficient, router_logits, tokens_per_expert, valid, n, static_cast<int>(num_experts),
      static_cast<int>(top_k));
  check_launch("balance_loss_backward");
}

}  // namespace caravan::cuda
