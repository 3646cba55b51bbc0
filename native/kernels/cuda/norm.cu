#include "kernels/norm.h"

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

namespace {

constexpr int block_threads = 256;

/// The part of one row that a thread holds: element `at(k)` and those after it in its pack, for k < packs. A row lies on
/// `threads` threads: one warp of eight, or the whole block.
template <int threads, int packs, int width>
struct RowShare {
  int c;

  __device__ int64_t row() const {
    return static_cast<int64_t>(blockIdx.x) * (block_threads / threads) + threadIdx.x / threads;
  }
  __device__ int at(int k) const { return (k * threads + threadIdx.x % threads) * width; }
  __device__ bool holds(int k) const { return at(k) < c; }
};

template <int threads>
__device__ __forceinline__ float row_sum(float value) {
  __shared__ float scratch[block_threads / 32];
  return block_sum<threads>(value, scratch);
}

template <typename T, typename W, int threads, int packs>
__global__ void __launch_bounds__(block_threads)
    rmsnorm_forward_kernel(T* y, int64_t y_row, float* rstd, const T* x, const W* weight, int64_t n, int c, float eps) {
  const RowShare<threads, packs, pack> share{c};
  const int64_t row = share.row();
  if (row >= n) return;  // a whole warp, or no thread at all
  float v[packs][pack];
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    if (!share.holds(k)) continue;
    load(v[k], x + row * c + share.at(k));
#pragma unroll
    for (int j = 0; j < pack; ++j) squares += v[k][j] * v[k][j];
  }
  const float scale = 1.0f / sqrtf(row_sum<threads>(squares) / static_cast<float>(c) + eps);
  if (rstd != nullptr && threadIdx.x % threads == 0) rstd[row] = scale;
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    if (!share.holds(k)) continue;
    float w[pack];
    load(w, weight + share.at(k));
#pragma unroll
    for (int j = 0; j < pack; ++j) w[j] *= static_cast<float>(rounded<T>(v[k][j] * scale));
    store(y + row * y_row + share.at(k), w);
  }
}

/// Any width and alignment: the block reads its row twice.
template <typename T, typename W>
__global__ void __launch_bounds__(block_threads)
    rmsnorm_forward_any_kernel(T* y, int64_t y_row, float* rstd, const T* x, const W* weight, int c, float eps) {
  const int64_t row = blockIdx.x;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < c; i += block_threads) {
    const float value = static_cast<float>(x[row * c + i]);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(row_sum<block_threads>(squares) / static_cast<float>(c) + eps);
  if (rstd != nullptr && threadIdx.x == 0) rstd[row] = scale;
  for (int i = threadIdx.x; i < c; i += block_threads) {
    const float value = static_cast<float>(rounded<T>(static_cast<float>(x[row * c + i]) * scale));
    y[row * y_row + i] = rounded<T>(value * static_cast<float>(weight[i]));
  }
}

/// dx = rstd * (w dy - x * rstd^2 * mean(w dy x)).
template <typename T, typename W, int threads, int packs>
__global__ void __launch_bounds__(block_threads)
    rmsnorm_backward_kernel(T* dx, const T* dy, const T* x, const float* rstd, const W* weight, int64_t n, int c,
                            bool accumulate) {
  const RowShare<threads, packs, pack> share{c};
  const int64_t row = share.row();
  if (row >= n) return;
  float g[packs][pack], v[packs][pack];
  float dot = 0.0f;
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    if (!share.holds(k)) continue;
    float w[pack];
    load(g[k], dy + row * c + share.at(k));
    load(v[k], x + row * c + share.at(k));
    load(w, weight + share.at(k));
#pragma unroll
    for (int j = 0; j < pack; ++j) {
      g[k][j] *= w[j];
      dot += g[k][j] * v[k][j];
    }
  }
  const float scale = rstd[row];
  const float along_x = row_sum<threads>(dot) * scale * scale / static_cast<float>(c);
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    if (!share.holds(k)) continue;
    T* const to = dx + row * c + share.at(k);
    float before[pack] = {};
    if (accumulate) load(before, to);
#pragma unroll
    for (int j = 0; j < pack; ++j) g[k][j] = scale * (g[k][j] - v[k][j] * along_x) + before[j];
    store(to, g[k]);
  }
}

template <typename T, typename W>
__global__ void __launch_bounds__(block_threads)
    rmsnorm_backward_any_kernel(T* dx, const T* dy, const T* x, const float* rstd, const W* weight, int c,
                                bool accumulate) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * c;
  float dot = 0.0f;
  for (int i = threadIdx.x; i < c; i += block_threads) {
    dot += static_cast<float>(dy[first + i]) * static_cast<float>(weight[i]) * static_cast<float>(x[first + i]);
  }
  const float scale = rstd[blockIdx.x];
  const float along_x = row_sum<block_threads>(dot) * scale * scale / static_cast<float>(c);
  for (int i = threadIdx.x; i < c; i += block_threads) {
    const float g = static_cast<float>(dy[first + i]) * static_cast<float>(weight[i]);
    const float value = scale * (g - static_cast<float>(x[first + i]) * along_x);
    dx[first + i] = rounded<T>(accumulate ? value + static_cast<float>(dx[first + i]) : value);
  }
}

/// Calls body.operator()<threads, packs>() with a division of rows of `c` elements over threads; false when there is
/// none and the row must be read twice.
template <typename Body>
bool with_row_share(int64_t c, bool vector, Body body) {
  if (!vector || c % pack != 0) return false;
  const int64_t packs = c / pack;
  if (packs <= 32) return body.template operator()<32, 1>(), true;
  if (packs <= 64) return body.template operator()<32, 2>(), true;
  if (packs <= 128) return body.template operator()<32, 4>(), true;
  if (packs <= 256) return body.template operator()<block_threads, 1>(), true;
  if (packs <= 512) return body.template operator()<block_threads, 2>(), true;
  if (packs <= 1024) return body.template operator()<block_threads, 4>(), true;
  if (packs <= 2048) return body.template operator()<block_threads, 8>(), true;
  return false;
}

// dweight is summed over blocks of this many rows, and the blocks in order, as on the CPU.
constexpr int rows_per_sum = 64;

template <typename T>
__global__ void __launch_bounds__(block_threads)
    weight_gradient_kernel(float* partial, const T* dy, const T* x, const float* rstd, int64_t n, int64_t c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= c) return;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * rows_per_sum, last = min(n, first + rows_per_sum);
  float sum = 0.0f;
  for (int64_t row = first; row < last; ++row) {
    const float normed = static_cast<float>(rounded<T>(static_cast<float>(x[row * c + i]) * rstd[row]));
    sum = __fadd_rn(sum, __fmul_rn(static_cast<float>(dy[row * c + i]), normed));
  }
  partial[blockIdx.y * c + i] = sum;
}

__global__ void __launch_bounds__(block_threads)
    add_partial_rows_kernel(float* sums, const float* partial, int64_t rows, int64_t c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= c) return;
  float sum = sums[i];
  for (int64_t row = 0; row < rows; ++row) sum += partial[row * c + i];
  sums[i] = sum;
}

}  // namespace

void rmsnorm_forward(const Exec& exec, Ptr y, float* rstd, ConstPtr x, ConstPtr weight, int64_t n, int64_t c, float eps,
                     int64_t y_row) {
  if (n == 0) return;
  dispatch(x.dtype, [&]<typename T>() {
    dispatch(weight.dtype, [&]<typename W>() {
      const auto launch = [&]<int threads, int packs>() {
        rmsnorm_forward_kernel<T, W, threads, packs>
            <<<blocks_for(n, block_threads / threads), block_threads, 0, stream_of(exec)>>>(
                y.as<T>(), y_row, rstd, x.as<T>(), weight.as<W>(), n, static_cast<int>(c), eps);
      };
      const bool aligned = y_row % pack == 0 && aligned16(y.as<T>(), x.as<T>(), weight.as<W>());
      if (with_row_share(c, aligned, launch)) return;
      rmsnorm_forward_any_kernel<T, W><<<static_cast<unsigned>(n), block_threads, 0, stream_of(exec)>>>(
          y.as<T>(), y_row, rstd, x.as<T>(), weight.as<W>(), static_cast<int>(c), eps);
    });
  });
  check_launch("rmsnorm_forward");
}

void rmsnorm_backward(const Exec& exec, Ptr dx, float* dweight, ConstPtr dy, ConstPtr x, const float* rstd,
                      ConstPtr weight, int64_t n, int64_t c, bool accumulate) {
  if (n == 0) return;
  dispatch(x.dtype, [&]<typename T>() {
    if (dweight != nullptr) {  // before dx, which may lie where dy does
      const int64_t sums = (n + rows_per_sum - 1) / rows_per_sum;
      float* const partial = exec.cuda->workspace<float>(sums * c);
      const dim3 grid(blocks_for(c, block_threads), static_cast<unsigned>(sums));
      weight_gradient_kernel<<<grid, block_threads, 0, stream_of(exec)>>>(partial, dy.as<T>(), x.as<T>(), rstd, n, c);
      add_partial_rows_kernel<<<blocks_for(c, block_threads), block_threads, 0, stream_of(exec)>>>(dweight, partial,
                                                                                                   sums, c);
    }
    dispatch(weight.dtype, [&]<typename W>() {
      const auto launch = [&]<int threads, int packs>() {
        rmsnorm_backward_kernel<T, W, threads, packs>
            <<<blocks_for(n, block_threads / threads), block_threads, 0, stream_of(exec)>>>(
                dx.as<T>(), dy.as<T>(), x.as<T>(), rstd, weight.as<W>(), n, static_cast<int>(c), accumulate);
      };
      if (with_row_share(c, aligned16(dx.as<T>(), dy.as<T>(), x.as<T>(), weight.as<W>()), launch)) return;
      rmsnorm_backward_any_kernel<T, W><<<static_cast<unsigned>(n), block_threads, 0, stream_of(exec)>>>(
          dx.as<T>(), dy.as<T>(), x.as<T>(), rstd, weight.as<W>(), static_cast<int>(c), accumulate);
    });
  });
  check_launch("rmsnorm_backward");
}

}  // namespace caravan::cuda
