// The router's products against their definition in fp64.
#include "kernels/matmul.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("the router's products equal their definition and round nothing but the activations' gradient") {
  struct Sizes {
    int64_t n, e, c;
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const DType weights : {DType::f32, DType::bf16}) {
      for (const auto& [n, e, c] : {Sizes{1, 1, 1}, {1, 8, 70}, {9, 3, 33}, {40, 16, 96}, {67, 8, 130}}) {
        INFO(n << " tokens, " << e << " experts, " << c << " channels");
        const int64_t row = c + 5;  // of x: more lies behind what it routes by
        const TypedArray x(dtype, n * row, 1), w(weights, e * c, 2), dx0(dtype, n * c, 3);
        const TypedArray dlogits(DType::f32, n * e, 4), dw0(DType::f32, e * c, 5);
        TypedArray logits(DType::f32, n * e), dx = dx0, dw = dw0;
        router_forward({}, logits.floats(), x.ptr(), row, w.ptr(), n, e, c);
        router_backward_input({}, dx.ptr(), dlogits.floats(), w.ptr(), n, e, c);
        router_backward_weight({}, dw.floats(), dlogits.floats(), x.ptr(), row, n, e, c);
        const auto value = [](const TypedArray& array) { return [&](int64_t i) { return double{array[i]}; }; };
        check_elements(
            "logits", n * e, value(logits),
            [&](int64_t i) {
              double sum = 0.0;
              for (int64_t k = 0; k < c; ++k) sum += double{x[i / e * row + k]} * w[i % e * c + k];
              return sum;
            },
            rounding_limit(DType::f32, 4.0 * static_cast<double>(c)));
        check_elements(
            "dx", n * c, value(dx),
            [&](int64_t i) {
              double sum = dx0[i];
              for (int64_t k = 0; k < e; ++k) sum += double{dlogits[i / c * e + k]} * w[k * c + i % c];
              return sum;
            },
            rounding_limit(dtype, 4.0 * static_cast<double>(e)));
        check_elements(
            "dw", e * c, value(dw),
            [&](int64_t i) {
              double sum = dw0[i];
              for (int64_t t = 0; t < n; ++t) sum += double{dlogits[t * e + i / c]} * x[t * row + i % c];
              return sum;
            },
            rounding_limit(DType::f32, 4.0 * static_cast<double>(n)));
      }
    }
  }
}
