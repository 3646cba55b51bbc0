// The router's products on the GPU against their CPU twins.
#include "cuda/cuda_test.h"
#include "kernels/matmul.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T, typename W>
void compare(int64_t n, int64_t e, int64_t c, int64_t beyond) {
  const int64_t row = c + beyond;
  const std::string what =
      std::to_string(n) + " tokens, " + std::to_string(e) + " experts, " + std::to_string(c) + " channels";
  TwinArray<T> x(n * row), dx(n * c);
  TwinArray<W> w(e * c);
  TwinArray<float> logits(n * e), dlogits(n * e), dw(e * c);
  x.fill(1), w.fill(2), dx.fill(3), dlogits.fill(4), dw.fill(5);
  router_forward(cpu_exec(), logits.host(), x.host(), row, w.host(), n, e, c);
  router_forward(cuda_exec(), logits.device(), x.device(), row, w.device(), n, e, c);
  check_equal(logits, 1e-5, "logits: " + what);
  router_backward_input(cpu_exec(), dx.host(), dlogits.host(), w.host(), n, e, c);
  router_backward_input(cuda_exec(), dx.device(), dlogits.device(), w.device(), n, e, c);
  check_equal(dx, sizeof(T) == 4 ? 1e-5 : 8e-3, "dx: " + what);
  router_backward_weight(cpu_exec(), dw.host(), dlogits.host(), x.host(), row, n, e, c);
  router_backward_weight(cuda_exec(), dw.device(), dlogits.device(), x.device(), row, n, e, c);
  check_equal(dw, 1e-5, "dw: " + what);
}

template <typename T, typename W>
void compare_sizes(int64_t beyond) {
  for (const int64_t e : {1, 3, 8, 16, 37}) {
    compare<T, W>(1, e, 64, beyond);
    compare<T, W>(32, e, 320, beyond);
    compare<T, W>(33, e, 7, beyond);
    compare<T, W>(100, e, 33, beyond);
    compare<T, W>(301, e, 576, beyond);
    compare<T, W>(2500, e, 2304, beyond);
  }
}

}  // namespace

TEST_CASE("the router's products on the GPU equal their CPU twins") {
  for (const int64_t beyond : {0, 5, 24}) {
    compare_sizes<bf16, float>(beyond);
    compare_sizes<bf16, bf16>(beyond);
    compare_sizes<float, float>(beyond);
  }
}
