#include "kernels/classifier.h"

#include <cmath>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace caravan::cuda {

namespace {

// ---------------------------------------------------------------------------------------------------------------------
// Rows by index

template <typename T>
struct ScatterRowsAdd {
  T* x;
  const T* in;
  const int32_t* rows;
  int64_t c;

  template <int N>
  __device__ void at(unsigned row, int64_t column) const {
    float v[N], before[N];
    T* const to = x + rows[row] * c + column;
    load(v, in + row * c + column);
    load(before, to);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += before[j];
    store(to, v);
  }
};

constexpr int embedding_threads = 256;

/// A block takes one row of dout and some columns. The first row of each id adds all rows of that id, in their order.
template <typename T>
__global__ void __launch_bounds__(embedding_threads)
    embedding_backward_kernel(float* dtable, const T* dout, const int32_t* ids, int64_t n, int64_t c) {
  const int64_t row = blockIdx.x;
  const int32_t id = ids[row];
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t first = 0; first < row; first += embedding_threads) {
    const int64_t other = first + thread;
    if (__syncthreads_or(other < row && ids[other] == id)) return;
  }
  const int64_t column = static_cast<int64_t>(blockIdx.y) * embedding_threads + thread;
  __shared__ int32_t found[embedding_threads];
  __shared__ int found_by_warp[embedding_threads / 32];
  float sum = column < c ? dtable[id * c + column] : 0.0f;
  for (int64_t first = row; first < n; first += embedding_threads) {
    const int64_t other = first + thread;
    const bool same = other < n && ids[other] == id;
    const unsigned peers = __ballot_sync(all_lanes, same);
    if (thread % 32 == 0) found_by_warp[thread / 32] = __popc(peers);
    __syncthreads();
    int place = __popc(peers & ((1u << (thread % 32)) - 1)), count = 0;
    for (int warp = 0; warp < embedding_threads / 32; ++warp) {
      if (warp < thread / 32) place += found_by_warp[warp];
      count += found_by_warp[warp];
    }
    if (same) found[place] = static_cast<int32_t>(other - first);
    __syncthreads();
    if (column < c) {
      for (int i = 0; i < count; ++i) sum += static_cast<float>(dout[(first + found[i]) * c + column]);
    }
    __syncthreads();
  }
  if (column < c) dtable[id * c + column] = sum;
}

// ---------------------------------------------------------------------------------------------------------------------
// Cross entropy

constexpr int entropy_threads = 512;

/// Sum of exp(x - largest) over the values seen so far. Only -inf seen: largest stays -inf and the sum 0.
struct OnlineSum {
  float largest = -INFINITY;
  float sum = 0.0f;

  template <int N>
  __device__ void add(const float (&x)[N]) {
    float top = largest;
#pragma unroll
    for (int j = 0; j < N; ++j) top = fmaxf(top, x[j]);
    const float base = top == -INFINITY ? 0.0f : top;
    float added = 0.0f;
#pragma unroll
    for (int j = 0; j < N; ++j) added += expf(x[j] - base);
    sum = sum * expf(largest - base) + added;
    largest = top;
  }
};

/// One block a row, which it reads twice: the second time it mostly lies in the L2.
template <int width>
__global__ void __launch_bounds__(entropy_threads)
    cross_entropy_kernel(float* losses, float* logits, const int32_t* targets, int64_t v, bool gradient,
                         float gradient_scale) {
  float* const row = logits + blockIdx.x * v;
  const int32_t target = targets[blockIdx.x];
  const int64_t first = static_cast<int64_t>(threadIdx.x) * width;
  constexpr int64_t step = entropy_threads * width;
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
    if (!gradient) return;
    const float zeros[width] = {};
    for (int64_t i = first; i < v; i += step) store(row + i, zeros);
    return;
  }
  __shared__ float scratch[entropy_threads / 32];
  __shared__ double sums[entropy_threads / 32];
  const float at_target = row[target];
  OnlineSum mine;
  for (int64_t i = first; i < v; i += step) {
    float x[width];
    load(x, row + i);
    mine.add(x);
  }
  const float largest = block_max<entropy_threads>(mine.largest, scratch);
  // A thread that saw nothing adds nothing. In fp64: beside a nearly one-hot softmax's 1 the rest still counts.
  const float weight = mine.largest == -INFINITY && largest != -INFINITY ? 0.0f : expf(mine.largest - largest);
  const double sum = block_sum<entropy_threads>(static_cast<double>(mine.sum) * static_cast<double>(weight), sums);
  if (threadIdx.x == 0) losses[blockIdx.x] = static_cast<float>(log(sum)) + largest - at_target;
  if (!gradient) return;
  const float factor = static_cast<float>(static_cast<double>(gradient_scale) / sum);
  for (int64_t i = first; i < v; i += step) {
    float x[width];
    load(x, row + i);
#pragma unroll
    for (int j = 0; j < width; ++j) {
      x[j] = __fmul_rn(factor, expf(x[j] - largest));
      if (i + j == target) x[j] = __fsub_rn(x[j], gradient_scale);
    }
    store(row + i, x);
  }
}

}  // namespace

void embedding_forward(const Exec& exec, Ptr out, ConstPtr table, const int32_t* ids, int64_t n, int64_t c) {
  dispatch(out.dtype, [&]<typename T>() {
    dispatch(table.dtype, [&]<typename S>() {
      each_row(exec, GatherRows<T, S>{out.as<T>(), table.as<S>(), ids, c, 1}, n, c,
               aligned16(out.as<T>(), table.as<S>()), "embedding_forward");
    });
  });
}

void embedding_backward(const Exec& exec, Ptr dtable, ConstPtr dout, const int32_t* ids, int64_t n, int64_t c,
                        int64_t) {
  if (n * c == 0) return;
  const dim3 grid(static_cast<unsigned>(n), blocks_for(c, embedding_threads));
  dispatch(dout.dtype, [&]<typename T>() {
    embedding_backward_kernel<<<grid, embedding_threads, 0, stream_of(exec)>>>(dtable.as<float>(), dout.as<T>(), ids, n,
                                                                               c);
  });
  check_launch("embedding_backward");
}

void gather_rows(const Exec& exec, Ptr out, ConstPtr x, const int32_t* rows, int64_t m, int64_t c) {
  dispatch(x.dtype, [&]<typename T>() {
    each_row(exec, GatherRows<T, T>{out.as<T>(), x.as<T>(), rows, c, 1}, m, c, aligned16(out.as<T>(), x.as<T>()),
             "gather_rows");
  });
}

void scatter_rows_add(const Exec& exec, Ptr x, ConstPtr in, const int32_t* rows, int64_t m, int64_t c) {
  dispatch(x.dtype, [&]<typename T>() {
    each_row(exec, ScatterRowsAdd<T>{x.as<T>(), in.as<T>(), rows, c}, m, c, aligned16(x.as<T>(), in.as<T>()),
             "scatter_rows_add");
  });
}

void cross_entropy(const Exec& exec, float* losses, float* logits, const int32_t* targets, int64_t m, int64_t v,
                   bool gradient, float gradient_scale) {
  if (m == 0) return;
  const bool vector = v % 4 == 0 && aligned16(logits);
  const auto kernel = vector ? cross_entropy_kernel<4> : cross_entropy_kernel<1>;
  kernel<<<static_cast<unsigned>(m), entropy_threads, 0, stream_of(exec)>>>(losses, logits, targets, v, gradient,
                                                                            gradient_scale);
  check_launch("cross_entropy");
}

}  // namespace caravan::cuda
