// The router's products: tall and a few columns wide, so that they cost what reading the activations costs. Those stay in
// bf16 in memory; every product and sum is f32.
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/matmul.h"

namespace caravan::cuda {

namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int together = 8;        // experts that a thread keeps sums of
constexpr int forward_tokens = 4;  // of a warp
constexpr int input_tokens = 8;    // of a block
constexpr int64_t few_tokens = 32;

/// A warp takes four tokens and eight experts.
template <typename T, typename W, int width>
__global__ void __launch_bounds__(threads)
    forward_kernel(float* logits, const T* x, int64_t x_row, const W* w, int64_t n, int num_experts, int64_t c) {
  const int64_t token = (static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32) * forward_tokens;
  const int first = static_cast<int>(blockIdx.y) * together;
  float sums[forward_tokens][together] = {};
  for (int64_t i = threadIdx.x % 32 * width; i < c; i += 32 * width) {
    float v[forward_tokens][width];
#pragma unroll
    for (int t = 0; t < forward_tokens; ++t) load(v[t], x + (token + t < n ? token + t : n - 1) * x_row + i);
#pragma unroll
    for (int e = 0; e < together; ++e) {
      float weight[width];
      load(weight, w + (first + e < num_experts ? first + e : num_experts - 1) * c + i);
#pragma unroll
      for (int t = 0; t < forward_tokens; ++t) {
#pragma unroll
        for (int j = 0; j < width; ++j) sums[t][e] += v[t][j] * weight[j];
      }
    }
  }
#pragma unroll
  for (int t = 0; t < forward_tokens; ++t) {
#pragma unroll
    for (int e = 0; e < together; ++e) {
      const float sum = warp_sum(sums[t][e]);
      const bool mine = static_cast<int>(threadIdx.x) % 32 == (t * together + e) % 32;
      if (mine && token + t < n && first + e < num_experts) logits[(token + t) * num_experts + first + e] = sum;
    }
  }
}

/// A block takes one token and one expert: for so few tokens that warps which take several would leave the device idle.
template <typename T, typename W>
__global__ void __launch_bounds__(threads)
    few_forward_kernel(float* logits, const T* x, int64_t x_row, const W* w, int num_experts, int64_t c) {
  __shared__ float scratch[warps];
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < c; i += threads) {
    sum += static_cast<float>(x[blockIdx.y * x_row + i]) * static_cast<float>(w[blockIdx.x * c + i]);
  }
  sum = block_sum<threads>(sum, scratch);
  if (threadIdx.x == 0) logits[blockIdx.y * num_experts + blockIdx.x] = sum;
}

/// A thread takes its channels of eight tokens.
template <typename T, typename W, int width>
__global__ void __launch_bounds__(threads)
    backward_input_kernel(T* dx, const float* dlogits, const W* w, int64_t n, int num_experts, int64_t c) {
  const int64_t channel = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * width;
  const int64_t token = static_cast<int64_t>(blockIdx.y) * input_tokens;
  if (channel >= c) return;
  float sums[input_tokens][width] = {};
  for (int e = 0; e < num_experts; ++e) {
    float weight[width];
    load(weight, w + e * c + channel);
#pragma unroll
    for (int t = 0; t < input_tokens; ++t) {
      const float d = dlogits[(token + t < n ? token + t : n - 1) * num_experts + e];
#pragma unroll
      for (int j = 0; j < width; ++j) sums[t][j] += d * weight[j];
    }
  }
#pragma unroll
  for (int t = 0; t < input_tokens; ++t) {
    if (token + t >= n) break;
    T* const to = dx + (token + t) * c + channel;
    float before[width];
    load(before, to);
#pragma unroll
    for (int j = 0; j < width; ++j) sums[t][j] += before[j];
    store(to, sums[t]);
  }
}

/// partial (shares of the tokens, E, C): a thread takes its channels and eight experts over the block's share.
template <typename T, int width>
__global__ void __launch_bounds__(threads)
    backward_weight_kernel(float* partial, const float* dlogits, const T* x, int64_t x_row, int64_t n, int num_experts,
                           int64_t c, int64_t tokens_each) {
  const int64_t channel = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * width;
  const int first = static_cast<int>(blockIdx.z) * together;
  if (channel >= c) return;
  const int64_t begin = blockIdx.y * tokens_each, end = begin + tokens_each < n ? begin + tokens_each : n;
  float sums[together][width] = {};
#pragma unroll 2
  for (int64_t token = begin; token < end; ++token) {
    float v[width];
    load(v, x + token * x_row + channel);
#pragma unroll
    for (int e = 0; e < together; ++e) {
      const float d = first + e < num_experts ? dlogits[token * num_experts + first + e] : 0.0f;
#pragma unroll
      for (int j = 0; j < width; ++j) sums[e][j] += d * v[j];
    }
  }
#pragma unroll
  for (int e = 0; e < together; ++e) {
    if (first + e < num_experts) store(partial + (blockIdx.y * num_experts + first + e) * c + channel, sums[e]);
  }
}

/// dw += its partial sums, in order.
__global__ void __launch_bounds__(threads) sum_kernel(float* dw, const float* partial, int64_t shares, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= count) return;
  float sum = dw[i];
#pragma unroll 8
  for (int64_t s = 0; s < shares; ++s) sum += partial[s * count + i];
  dw[i] = sum;
}

constexpr int64_t least_tokens = 32, most_shares = 64;

/// f.operator()<width>() by whether rows begin on 16 bytes.
template <typename F>
void by_width(bool vector, const F& f) {
  vector ? f.template operator()<pack>() : f.template operator()<1>();
}

bool is_aligned(const void* a, const void* b, int64_t row, int64_t c) {
  return c % pack == 0 && row % pack == 0 && aligned16(static_cast<const char*>(a), static_cast<const char*>(b));
}

}  // namespace

void router_forward(const Exec& exec, float* logits, ConstPtr x, int64_t x_row, ConstPtr w, int64_t n,
                    int64_t num_experts, int64_t c) {
  if (n * num_experts == 0) return;
  const int e = static_cast<int>(num_experts);
  dispatch(x.dtype, [&]<typename T>() {
    dispatch(w.dtype, [&]<typename W>() {
      if (n <= few_tokens) {
        const dim3 each(static_cast<unsigned>(e), static_cast<unsigned>(n));
        few_forward_kernel<T, W><<<each, threads, 0, stream_of(exec)>>>(logits, x.as<T>(), x_row, w.as<W>(), e, c);
        return;
      }
      const dim3 grid(blocks_for(n, warps * forward_tokens), blocks_for(e, together));
      by_width(is_aligned(x.data, w.data, x_row, c), [&]<int width>() {
        forward_kernel<T, W, width>
            <<<grid, threads, 0, stream_of(exec)>>>(logits, x.as<T>(), x_row, w.as<W>(), n, e, c);
      });
    });
  });
  check_launch("router_forward");
}

void router_backward_input(const Exec& exec, Ptr dx, const float* dlogits, ConstPtr w, int64_t n, int64_t num_experts,
                           int64_t c) {
  if (n * c == 0) return;
  dispatch(dx.dtype, [&]<typename T>() {
    dispatch(w.dtype, [&]<typename W>() {
      by_width(is_aligned(dx.data, w.data, c, c), [&]<int width>() {
        const dim3 grid(blocks_for(c, int64_t{threads} * width), blocks_for(n, input_tokens));
        backward_input_kernel<T, W, width><<<grid, threads, 0, stream_of(exec)>>>(dx.as<T>(), dlogits, w.as<W>(), n,
                                                                                  static_cast<int>(num_experts), c);
      });
    });
  });
  check_launch("router_backward_input");
}

void router_backward_weight(const Exec& exec, float* dw, const float* dlogits, ConstPtr x, int64_t x_row, int64_t n,
                            int64_t num_experts, int64_t c) {
  const int64_t count = num_experts * c;
  if (n * count == 0) return;
  int64_t shares = std::clamp<int64_t>(n / least_tokens, 1, most_shares);
  const int64_t tokens_each = (n + shares - 1) / shares;
  shares = (n + tokens_each - 1) / tokens_each;
  float* const partial = exec.cuda->workspace<float>(shares * count);
  dispatch(x.dtype, [&]<typename T>() {
    by_width(is_aligned(x.data, partial, x_row, c), [&]<int width>() {
      const dim3 grid(blocks_for(c, int64_t{threads} * width), static_cast<unsigned>(shares),
                      blocks_for(num_experts, together));
      backward_weight_kernel<T, width><<<grid, threads, 0, stream_of(exec)>>>(
          partial, dlogits, x.as<T>(), x_row, n, static_cast<int>(num_experts), c, tokens_each);
    });
  });
  sum_kernel<<<blocks_for(count, threads), threads, 0, stream_of(exec)>>>(dw, partial, shares, count);
  check_launch("router_backward_weight");
}

}  // namespace caravan::cuda
