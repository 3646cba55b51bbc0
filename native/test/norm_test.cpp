// RMSNorm against its formula in fp64, its gradients against finite differences, and its bits against the thread count.
#include "kernels/norm.h"

#include <cmath>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/thread_pool.h"

using namespace caravan;

namespace {

struct Array {
  DType dtype;
  std::vector<char> bytes;

  Array(DType type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count) * size_of(type)) {}
  Array(DType type, int64_t count, uint32_t seed) : Array(type, count) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count; ++i) cpu::store_element(ptr(), i, normal(random));
  }
  Ptr ptr() { return {bytes.data(), dtype}; }
  ConstPtr ptr() const { return {bytes.data(), dtype}; }
  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
  int64_t count() const { return static_cast<int64_t>(bytes.size() / size_of(dtype)); }
  float operator[](int64_t i) const { return cpu::load_element(ptr(), i); }
};

constexpr float eps = 1e-5f;
constexpr DType dtypes[] = {DType::f32, DType::bf16};

double rstd_of(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double value : x) sum += value * value;
  return 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
}

std::vector<double> row_of(const Array& x, int64_t row, int64_t c) {
  std::vector<double> values;
  for (int64_t i = 0; i < c; ++i) values.push_back(x[row * c + i]);
  return values;
}

void check_close(float actual, double expected, DType dtype, double relative = 2e-6) {
  const double limit =
      relative * std::max(1.0, std::fabs(expected)) + (dtype == DType::bf16 ? std::fabs(expected) / 60.0 + 1e-6 : 0.0);
  CHECK(std::fabs(actual - expected) <= limit);
}

}  // namespace

TEST_CASE("forward equals the formula and keeps rstd") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const DType dtype : dtypes) {
    for (const DType weight_dtype : dtypes) {
      for (const int64_t n : {1, 3, 67}) {
        for (const int64_t c : {1, 7, 17, 64, 130}) {
          const Array x(dtype, n * c, 1), weight(weight_dtype, c, 2);
          Array y(dtype, n * c), rstd(DType::f32, n), again(dtype, n * c);
          rmsnorm_forward(exec, y.ptr(), rstd.floats(), x.ptr(), weight.ptr(), n, c, eps);
          for (int64_t row = 0; row < n; ++row) {
            const double r = rstd_of(row_of(x, row, c));
            CHECK(rstd[row] == doctest::Approx(r).epsilon(1e-6));
            for (int64_t i = 0; i < c; ++i) check_close(y[row * c + i], x[row * c + i] * r * weight[i], dtype);
          }
          rmsnorm_forward(exec, again.ptr(), nullptr, x.ptr(), weight.ptr(), n, c, eps);
          CHECK(again.bytes == y.bytes);
        }
      }
    }
  }
}

TEST_CASE("bf16 rounds x * rstd before the weight, as Hugging Face does") {
  const Array x(DType::bf16, 64, 1), weight(DType::f32, 64, 2);
  Array y(DType::bf16, 64), rstd(DType::f32, 1);
  rmsnorm_forward({}, y.ptr(), rstd.floats(), x.ptr(), weight.ptr(), 1, 64, eps);
  for (int64_t i = 0; i < 64; ++i) {
    CHECK(y[i] == cpu::round_to(DType::bf16, cpu::round_to(DType::bf16, x[i] * rstd[0]) * weight[i]));
  }
}

TEST_CASE("backward equals finite differences of the formula") {
  constexpr int64_t n = 3, c = 9;
  const Array x(DType::f32, n * c, 1), weight(DType::f32, c, 2), dy(DType::f32, n * c, 3);
  Array y(DType::f32, n * c), rstd(DType::f32, n), dx(DType::f32, n * c), dweight(DType::f32, c);
  rmsnorm_forward({}, y.ptr(), rstd.floats(), x.ptr(), weight.ptr(), n, c, eps);
  rmsnorm_backward({}, dx.ptr(), dweight.floats(), dy.ptr(), x.ptr(), rstd.floats(), weight.ptr(), n, c, false);
  const auto loss = [&](int64_t at, double x_step, int64_t w_at, double w_step) {
    double sum = 0.0;
    for (int64_t row = 0; row < n; ++row) {
      std::vector<double> values = row_of(x, row, c);
      if (at / c == row) values[static_cast<size_t>(at % c)] += x_step;
      const double r = rstd_of(values);
      for (int64_t i = 0; i < c; ++i) {
        sum += dy[row * c + i] * values[static_cast<size_t>(i)] * r * (weight[i] + (i == w_at ? w_step : 0.0));
      }
    }
    return sum;
  };
  constexpr double h = 1e-5;
  for (int64_t i = 0; i < n * c; ++i) {
    check_close(dx[i], (loss(i, h, 0, 0) - loss(i, -h, 0, 0)) / (2 * h), DType::f32);
  }
  for (int64_t i = 0; i < c; ++i) {
    check_close(dweight[i], (loss(0, 0, i, h) - loss(0, 0, i, -h)) / (2 * h), DType::f32);
  }
}

TEST_CASE("backward equals the formula at every size, accumulates, and no bit depends on the thread count") {
  for (const DType dtype : dtypes) {
    for (const DType weight_dtype : dtypes) {
      for (const int64_t n : {1, 3, 67, 301}) {
        for (const int64_t c : {1, 17, 64, 130}) {
          const Array x(dtype, n * c, 1), weight(weight_dtype, c, 2), dy(dtype, n * c, 3), dx0(dtype, n * c, 4);
          Array y(dtype, n * c), rstd(DType::f32, n);
          rmsnorm_forward({}, y.ptr(), rstd.floats(), x.ptr(), weight.ptr(), n, c, eps);
          std::vector<char> first;
          for (const int threads : {1, 2, 5}) {
            const auto pool = make_thread_pool(threads);
            Exec exec;
            exec.pool = pool.get();
            Array dx = dx0, dweight(DType::f32, c, 5);
            const Array dweight0 = dweight;
            rmsnorm_backward(exec, dx.ptr(), dweight.floats(), dy.ptr(), x.ptr(), rstd.floats(), weight.ptr(), n, c,
                             true);
            std::vector<char> all = dx.bytes;
            all.insert(all.end(), dweight.bytes.begin(), dweight.bytes.end());
            if (!first.empty()) {
              CHECK(all == first);
              continue;
            }
            first = all;
            std::vector<double> expected_dweight(static_cast<size_t>(c));
            for (int64_t row = 0; row < n; ++row) {
              const double r = rstd[row];
              double dot = 0.0;
              for (int64_t i = 0; i < c; ++i) dot += static_cast<double>(dy[row * c + i]) * weight[i] * x[row * c + i];
              for (int64_t i = 0; i < c; ++i) {
                const int64_t at = row * c + i;
                const double expected =
                    r * (static_cast<double>(dy[at]) * weight[i] - x[at] * dot * r * r / static_cast<double>(c));
                check_close(dx[at], expected + dx0[at], dtype, 4e-6);
                expected_dweight[static_cast<size_t>(i)] +=
                    static_cast<double>(dy[at]) * cpu::round_to(dtype, x[at] * rstd[row]);
              }
            }
            for (int64_t i = 0; i < c; ++i) {
              check_close(dweight[i], dweight0[i] + expected_dweight[static_cast<size_t>(i)], DType::f32, 1e-5);
            }
          }
        }
      }
    }
  }
}
