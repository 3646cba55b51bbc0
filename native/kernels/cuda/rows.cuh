// Copies and sums of whole rows that are named by an index.
#pragma once

#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

constexpr int row_threads = 128;

/// f.at<N>(row, column) for N columns from `column` on.
template <typename F, int width>
__global__ void __launch_bounds__(row_threads) each_row_kernel(F f, int64_t c, unsigned blocks_per_row) {
  const unsigned row = blockIdx.x / blocks_per_row;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % blocks_per_row) * row_threads + threadIdx.x) * width;
  if (column < c) f.template at<width>(row, column);
}

/// Over all elements of (rows, c): by packs where `vector` says that the arrays are aligned and `c` allows it.
template <typename F>
void each_row(const Exec& exec, const F& f, int64_t rows, int64_t c, bool vector, const char* operation) {
  if (rows * c == 0) return;
  const int width = vector && c % pack == 0 ? pack : 1;
  const unsigned per_row = blocks_for(c, int64_t{row_threads} * width);
  const unsigned blocks = per_row * static_cast<unsigned>(rows);
  if (width == pack) {
    each_row_kernel<F, pack><<<blocks, row_threads, 0, stream_of(exec)>>>(f, c, per_row);
  } else {
    each_row_kernel<F, 1><<<blocks, row_threads, 0, stream_of(exec)>>>(f, c, per_row);
  }
  check_launch(operation);
}

/// out[r] = x[index[r] / divisor], converted to out's type.
template <typename T, typename S>
struct GatherRows {
  T* out;
  const S* x;
  const int32_t* index;
  int64_t c;
  int32_t divisor;

  template <int N>
  __device__ void at(unsigned row, int64_t column) const {
    float v[N];
    load(v, x + (index[row] / divisor) * c + column);
    store(out + row * c + column, v);
  }
};

}  // namespace caravan::cuda
