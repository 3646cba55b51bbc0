// Element-wise functions on the GPU against their CPU twins: every element, both types, whole packs and parts of one.
#include "cuda/cuda_test.h"
#include "kernels/activation.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Elements before the arrays begin: 0, or 1 so that no access of 16 bytes is aligned.
constexpr int64_t shifts[] = {0, 1};

template <typename T>
constexpr double limit = sizeof(T) == 4 ? 1e-6 : 8e-3;

template <typename T>
void compare(int64_t count, int64_t shift) {
  const std::string what = std::to_string(count) + " from " + std::to_string(shift);
  const int64_t n = count + shift;
  TwinArray<T> gate(n), up(n), dout(n), out(n), dgate(n), dup(n), gelu(n), dgelu(n);
  gate.fill(1, 8.0f);
  up.fill(2, 2.0f);
  dout.fill(3);
  for (TwinArray<T>* array : {&out, &dgate, &dup, &gelu, &dgelu}) array->fill(4);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    const auto at = [&](TwinArray<T>& array) {
      return Ptr(exec.device == Device::cpu ? array.host() : array.device()).at(shift);
    };
    swiglu_forward(exec, at(out), at(gate), at(up), count);
    swiglu_backward(exec, at(dgate), at(dup), at(dout), at(gate), at(up), count);
    gelu_forward(exec, at(gelu), at(gate), count);
    gelu_backward(exec, at(dgelu), at(dout), at(gate), count);
  }
  check_equal(out, limit<T>, "swiglu " + what);
  check_equal(dgate, limit<T>, "dgate " + what, 1e-6);
  check_equal(dup, limit<T>, "dup " + what);
  // Far below zero 1 + erf cancels.
  check_equal(gelu, limit<T>, "gelu " + what, 1e-6);
  check_equal(dgelu, limit<T>, "dgelu " + what, 1e-6);
}

template <typename T, typename S>
void compare_types(int64_t count, int64_t shift) {
  const int64_t n = count + shift;
  TwinArray<T> sum(n), copy(n), zero(n);
  TwinArray<S> x(n);
  x.fill(1);
  for (TwinArray<T>* array : {&sum, &copy, &zero}) array->fill(2);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    const auto at = [&](auto& array) {
      return Ptr(exec.device == Device::cpu ? array.host() : array.device()).at(shift);
    };
    add_inplace(exec, at(sum), at(x), count);
    convert(exec, at(copy), at(x), count);
    fill_zero(exec, at(zero), count);
  }
  const std::string what = std::to_string(count) + " from " + std::to_string(shift);
  check_equal(sum, 0.0, "add_inplace " + what);
  check_equal(copy, 0.0, "convert " + what);
  check_equal(zero, 0.0, "fill_zero " + what);
}

}  // namespace

TEST_CASE("element-wise functions on the GPU equal their CPU twins") {
  for (const int64_t count : {0, 1, 7, 8, 9, 1021, 100000}) {
    for (const int64_t shift : shifts) {
      compare<float>(count, shift);
      compare<bf16>(count, shift);
      compare_types<float, float>(count, shift);
      compare_types<float, bf16>(count, shift);
      compare_types<bf16, float>(count, shift);
      compare_types<bf16, bf16>(count, shift);
    }
  }
}

TEST_CASE("the backward pass may write over its inputs") {
  const int64_t count = 4099;
  TwinArray<bf16> gate(count), up(count), dout(count), x(count);
  gate.fill(1, 3.0f);
  up.fill(2);
  dout.fill(3);
  x.fill(4, 3.0f);
  swiglu_backward(cpu_exec(), gate.host(), up.host(), dout.host(), gate.host(), up.host(), count);
  swiglu_backward(cuda_exec(), gate.device(), up.device(), dout.device(), gate.device(), up.device(), count);
  check_equal(gate, 8e-3, "dgate");
  check_equal(up, 8e-3, "dup");
  gelu_backward(cpu_exec(), dout.host(), dout.host(), x.host(), count);
  gelu_backward(cuda_exec(), dout.device(), dout.device(), x.device(), count);
  check_equal(dout, 8e-3, "dgelu");
}

TEST_CASE("far out, functions saturate as on the CPU") {
  const std::vector<float> values = {0.0f, -0.0f, 1e-30f, 30.0f, -30.0f, 88.0f, -88.0f, 200.0f, -200.0f, 3e38f};
  const auto count = static_cast<int64_t>(values.size());
  TwinArray<float> x(count), one(count), swiglu(count), gelu(count);
  for (int64_t i = 0; i < count; ++i) x[i] = values[static_cast<size_t>(i)], one[i] = 1.0f;
  x.to_device();
  one.to_device();
  swiglu_forward(cpu_exec(), swiglu.host(), x.host(), one.host(), count);
  swiglu_forward(cuda_exec(), swiglu.device(), x.device(), one.device(), count);
  gelu_forward(cpu_exec(), gelu.host(), x.host(), count);
  gelu_forward(cuda_exec(), gelu.device(), x.device(), count);
  const std::vector<float> s = swiglu.from_device(), g = gelu.from_device();
  for (int64_t i = 0; i < count; ++i) {
    const size_t at = static_cast<size_t>(i);
    INFO("x " << x[i]);
    CHECK(std::fabs(s[at] - swiglu[i]) <= 1e-6f * std::fabs(swiglu[i]) + 1e-35f);
    CHECK(std::fabs(g[at] - gelu[i]) <= 1e-6f * std::fabs(gelu[i]) + 1e-35f);
  }
}
