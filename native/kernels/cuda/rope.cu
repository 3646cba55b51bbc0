#include "kernels/rope.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan::cuda {

namespace {

/// One thread a pair (i, i + D / 2) of one head.
template <typename T>
__global__ void rope_kernel(T* x, const float* cos, const float* sin, const int32_t* positions, int64_t pairs,
                            int heads, int half, bool inverse) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= pairs) return;
  const int i = static_cast<int>(at % half);
  const int64_t head = at / half;
  const int64_t angle = static_cast<int64_t>(positions[head / heads]) * half + i;
  const float c = cos[angle], s = inverse ? -sin[angle] : sin[angle];
  T* const pair = x + head * 2 * half + i;
  const float a = static_cast<float>(pair[0]), b = static_cast<float>(pair[half]);
  pair[0] = T(__fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s)));
  pair[half] = T(__fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s)));
}

}  // namespace

void rope_apply(const Exec& exec, Ptr x, const float* cos, const float* sin, const int32_t* positions, int64_t n,
                int64_t heads, int64_t head_dim, bool inverse) {
  const int64_t half = head_dim / 2, pairs = n * heads * half;
  if (pairs == 0) return;
  constexpr int threads = 256;
  const unsigned blocks = static_cast<unsigned>((pairs + threads - 1) / threads);
  dispatch(x.dtype, [&]<typename T>() {
    rope_kernel<T><<<blocks, threads, 0, stream_of(exec)>>>(x.as<T>(), cos, sin, positions, pairs,
                                                            static_cast<int>(heads), static_cast<int>(half), inverse);
  });
  check_launch("rope_apply");
}

}  // namespace caravan::cuda
