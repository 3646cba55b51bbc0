#include "kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/element.h"

namespace caravan::cpu {
namespace {

// dweight is summed over blocks of this many rows, and the blocks in order, whatever the thread count.
constexpr int64_t rows_per_block = 64;
// Sums over a row run in this many lanes, so that the compiler may use vectors without changing the order.
constexpr int64_t lanes = 8;

int64_t row_grain(int64_t c) { return std::max<int64_t>(1, 8192 / std::max<int64_t>(c, 1)); }

template <typename F>
float sum_over(int64_t c, F&& term) {
  float sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= c; i += lanes) {
    for (int64_t l = 0; l < lanes; ++l) sums[l] += term(i + l);
  }
  for (int64_t l = 0; i + l < c; ++l) sums[l] += term(i + l);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <typename T>
T rounded(float value) {
  return static_cast<T>(value);
}

template <typename T, typename W>
void forward_row(T* y, float* rstd, const T* x, const W* weight, int64_t c, float eps) {
  const float mean_square = sum_over(c,
                                     [&](int64_t i) {
                                       const float value = x[i];
                                       return value * value;
                                     }) /
                            static_cast<float>(c);
  const float scale = 1.0f / std::sqrt(mean_square + eps);
  if (rstd != nullptr) *rstd = scale;
  for (int64_t i = 0; i < c; ++i) {
    y[i] = rounded<T>(static_cast<float>(rounded<T>(static_cast<float>(x[i]) * scale)) * static_cast<float>(weight[i]));
  }
}

/// dx = rstd * (w dy - x * rstd^2 * mean(w dy x)); dweight += dy * (x * rstd as the forward pass rounded it).
template <typename T, typename W>
void backward_row(T* dx, float* dweight, const T* dy, const T* x, float rstd, const W* weight, int64_t c,
                  bool accumulate) {
  const float dot = sum_over(c, [&](int64_t i) {
    return static_cast<float>(dy[i]) * static_cast<float>(weight[i]) * static_cast<float>(x[i]);
  });
  const float along_x = dot * rstd * rstd / static_cast<float>(c);
  if (dweight != nullptr) {
    for (int64_t i = 0; i < c; ++i) {
      dweight[i] += static_cast<float>(dy[i]) * static_cast<float>(rounded<T>(static_cast<float>(x[i]) * rstd));
    }
  }
  for (int64_t i = 0; i < c; ++i) {
    float value =
        rstd * (static_cast<float>(dy[i]) * static_cast<float>(weight[i]) - static_cast<float>(x[i]) * along_x);
    if (accumulate) value += static_cast<float>(dx[i]);
    dx[i] = rounded<T>(value);
  }
}

}  // namespace

void rmsnorm_forward(const Exec& exec, Ptr y, float* rstd, ConstPtr x, ConstPtr weight, int64_t n, int64_t c, float eps,
                     int64_t y_row) {
  dispatch(x.dtype, [&]<typename T>() {
    dispatch(weight.dtype, [&]<typename W>() {
      parallel_for(exec, n, row_grain(c), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          forward_row(y.as<T>() + row * y_row, rstd == nullptr ? nullptr : rstd + row, x.as<T>() + row * c,
                      weight.as<W>(), c, eps);
        }
      });
    });
  });
}

void rmsnorm_backward(const Exec& exec, Ptr dx, float* dweight, ConstPtr dy, ConstPtr x, const float* rstd,
                      ConstPtr weight, int64_t n, int64_t c, bool accumulate) {
  const int64_t blocks = (n + rows_per_block - 1) / rows_per_block;
  std::vector<float> partial(dweight == nullptr ? 0 : static_cast<size_t>(blocks * c));
  dispatch(x.dtype, [&]<typename T>() {
    dispatch(weight.dtype, [&]<typename W>() {
      const int64_t grain = std::max<int64_t>(1, row_grain(c) / rows_per_block);
      parallel_for(exec, blocks, grain, [&](int64_t first, int64_t last) {
        for (int64_t row = first * rows_per_block; row < std::min(n, last * rows_per_block); ++row) {
          float* sums = dweight == nullptr ? nullptr : partial.data() + row / rows_per_block * c;
          backward_row(dx.as<T>() + row * c, sums, dy.as<T>() + row * c, x.as<T>() + row * c, rstd[row], weight.as<W>(),
                       c, accumulate);
        }
      });
    });
  });
  if (dweight == nullptr) return;
  parallel_for(exec, c, 64, [&](int64_t first, int64_t last) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t i = first; i < last; ++i) dweight[i] += partial[static_cast<size_t>(block * c + i)];
    }
  });
}

}  // namespace caravan::cpu
