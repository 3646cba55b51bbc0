// RMSNorm on the GPU against the CPU twin: rows of one head to wide ones, aligned or not, with and without statistics,
// the weight's gradient, and accumulation.
#include "cuda/cuda_test.h"
#include "kernels/norm.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T, typename W>
void compare(int64_t n, int64_t c, int64_t shift) {
  const std::string what = std::to_string(n) + " x " + std::to_string(c) + " from " + std::to_string(shift);
  const int64_t count = n * c + shift;
  TwinArray<T> x(count), y(count), dy(count), dx(count), dx_sum(count);
  TwinArray<W> weight(c + shift);
  TwinArray<float> rstd(n), dweight(c);
  x.fill(1, 3.0f);
  dy.fill(2);
  weight.fill(3);
  y.fill(4);
  dx.fill(5);
  dx_sum.fill(6);
  dweight.fill(7);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    const auto at = [&](auto& array) {
      return Ptr(exec.device == Device::cpu ? array.host() : array.device()).at(shift);
    };
    const auto floats = [&](TwinArray<float>& array) {
      return exec.device == Device::cpu ? array.host() : array.device();
    };
    rmsnorm_forward(exec, at(y), nullptr, at(x), at(weight), n, c, 1e-5f);
    rmsnorm_forward(exec, at(y), floats(rstd), at(x), at(weight), n, c, 1e-5f);
    if (exec.device == Device::cuda) check_equal(rstd, 5e-6, "rstd " + what);  // the CPU sums a row one after the other
    rstd.to_device();  // what follows begins from the same statistics
    rmsnorm_backward(exec, at(dx), nullptr, at(dy), at(x), floats(rstd), at(weight), n, c, false);
    rmsnorm_backward(exec, at(dx_sum), floats(dweight), at(dy), at(x), floats(rstd), at(weight), n, c, true);
  }
  constexpr double limit = sizeof(T) == 4 ? 2e-6 : 8e-3;
  // In a row of one element the two terms of dx are nearly equal.
  const double cancelled = c == 1 ? 1e-5 : 0.0;
  check_equal(y, limit, "y " + what);
  check_equal(dx, limit, "dx " + what, cancelled);
  check_equal(dx_sum, limit, "dx += " + what, cancelled);
  check_equal(dweight, 2e-6, "dweight " + what);
}

/// Rows of y with `beyond` elements behind each, which stay as they are.
template <typename T>
void compare_apart(int64_t n, int64_t c, int64_t beyond) {
  const int64_t row = c + beyond;
  TwinArray<T> x(n * c), y(n * row);
  TwinArray<float> weight(c);
  x.fill(1, 3.0f), weight.fill(2), y.fill(3);
  rmsnorm_forward(cpu_exec(), y.host(), nullptr, x.host(), weight.host(), n, c, 1e-5f, row);
  rmsnorm_forward(cuda_exec(), y.device(), nullptr, x.device(), weight.device(), n, c, 1e-5f, row);
  check_equal(y, sizeof(T) == 4 ? 2e-6 : 8e-3, std::to_string(c) + " and " + std::to_string(beyond) + " beyond");
}

template <typename T, typename W>
void compare_shapes() {
  for (const int64_t c : {1, 7, 64, 128, 200, 576, 1000, 1001, 2048, 4096, 8192, 9000, 20000}) compare<T, W>(5, c, 0);
  for (const int64_t n : {0, 1, 8, 63, 64, 65, 300}) compare<T, W>(n, 136, 0);
  compare<T, W>(3, 128, 1);
  compare<T, W>(70, 2048, 1);
}

}  // namespace

TEST_CASE("RMSNorm on the GPU equals its CPU twin") {
  compare_shapes<float, float>();
  compare_shapes<bf16, float>();
  compare_shapes<bf16, bf16>();
  compare_shapes<float, bf16>();
}

TEST_CASE("rows of the result may lie apart") {
  for (const int64_t beyond : {1, 8, 192}) {
    for (const int64_t c : {7, 64, 576, 4096, 20000}) {
      compare_apart<float>(9, c, beyond);
      compare_apart<bf16>(9, c, beyond);
    }
  }
}

TEST_CASE("the gradient may take the place of what it came from") {
  const int64_t n = 9, c = 512;
  TwinArray<bf16> x(n * c), dy(n * c);
  TwinArray<float> weight(c), rstd(n), dweight(c);
  x.fill(1);
  dy.fill(2);
  weight.fill(3);
  rstd.fill(4);
  dweight.fill(5);
  rmsnorm_backward(cpu_exec(), dy.host(), dweight.host(), dy.host(), x.host(), rstd.host(), weight.host(), n, c, false);
  rmsnorm_backward(cuda_exec(), dy.device(), dweight.device(), dy.device(), x.device(), rstd.device(), weight.device(),
                   n, c, false);
  check_equal(dy, 8e-3, "dx");
  check_equal(dweight, 2e-6, "dweight");
}
