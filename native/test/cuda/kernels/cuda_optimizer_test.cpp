// Optimizers on the GPU against their CPU twins, bit for bit: parameters, moments, codes and absmax over several steps.
#include <cstring>

#include "cuda/cuda_test.h"
#include "kernels/optimizer.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
T* on(const Exec& exec, TwinArray<T>& array) {
  return exec.device == Device::cpu ? array.host() : array.device();
}

template <typename T>
void fill_value(TwinArray<T>& array, T value) {
  for (int64_t i = 0; i < array.count(); ++i) array[i] = value;
  array.to_device();
}

AdamWOptions options_at(int64_t step, float weight_decay) {
  AdamWOptions options;
  options.lr = 1e-3f;
  options.weight_decay = weight_decay;
  options.step = step;
  options.gradient_scale = 0.3f;
  options.seed = 99;
  options.parameter = 4;
  return options;
}

/// Gradients whose size varies by block, as a model's do, with some exact zeros.
template <typename G>
void fill_gradient(TwinArray<G>& g, uint32_t seed) {
  g.fill(seed, 0.01f);
  for (int64_t i = 0; i < g.count(); ++i) {
    const float scale = std::pow(10.0f, static_cast<float>(i / 256 % 5) - 3.0f);
    g[i] = i % 97 == 0 ? G(0.0f) : G(static_cast<float>(g[i]) * scale);
  }
  g.to_device();
}

/// Compares bits, so that NaN equals NaN and -0 is not 0.
template <typename T>
void check_bits(TwinArray<T>& array, const std::string& what) {
  const std::vector<T> found = array.from_device();
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < array.count(); ++i) {
    if (std::memcmp(&found[static_cast<size_t>(i)], array.host() + i, sizeof(T)) == 0) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return;
  FAIL_CHECK(what << ": " << wrong << " of " << array.count() << " differ; element " << first << " is "
                  << static_cast<double>(found[static_cast<size_t>(first)]) << " on the GPU, "
                  << static_cast<double>(array[first]) << " on the CPU");
}

template <typename P, typename G>
void compare(int64_t count, float weight_decay, int64_t shift) {
  const std::string what = std::to_string(count) + " of " + std::to_string(sizeof(P)) + " and " +
                           std::to_string(sizeof(G)) + " bytes, decay " + std::to_string(weight_decay) + ", shift " +
                           std::to_string(shift);
  const int64_t n = count + shift, blocks = (count + adamw8bit_block - 1) / adamw8bit_block;
  TwinArray<P> p(n), p8(n);
  TwinArray<G> g(n);
  TwinArray<float> m(n), v(n), absmax1(blocks), absmax2(blocks);
  TwinArray<uint8_t> state1(n), state2(n);
  p.fill(1);
  p8.fill(1);
  fill_value(m, 0.0f);
  fill_value(v, 0.0f);
  fill_value(absmax1, 0.0f);
  fill_value(absmax2, 0.0f);
  fill_value<uint8_t>(state1, 0);
  fill_value<uint8_t>(state2, 0);
  for (int64_t step = 1; step <= 4; ++step) {
    fill_gradient(g, static_cast<uint32_t>(10 + step));
    const AdamWOptions options = options_at(step, weight_decay);
    for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
      adamw_update(exec, on(exec, p) + shift, on(exec, g) + shift, on(exec, m) + shift, on(exec, v) + shift, count,
                   options);
      adamw8bit_update(exec, on(exec, p8) + shift, on(exec, g) + shift, on(exec, state1) + shift,
                       on(exec, state2) + shift, on(exec, absmax1), on(exec, absmax2), count, options);
    }
  }
  check_bits(p, "p " + what);
  check_bits(m, "m " + what);
  check_bits(v, "v " + what);
  check_bits(p8, "8-bit p " + what);
  check_bits(state1, "state1 " + what);
  check_bits(state2, "state2 " + what);
  check_bits(absmax1, "absmax1 " + what);
  check_bits(absmax2, "absmax2 " + what);
}

template <typename P, typename G>
void compare_sizes() {
  for (const float weight_decay : {0.0f, 0.1f}) {
    for (const int64_t count : {0, 1, 3, 255, 256, 257, 4097, 300001}) compare<P, G>(count, weight_decay, 0);
    compare<P, G>(1030, weight_decay, 1);
  }
}

template <typename T>
void compare_norm(int64_t count, int64_t shift) {
  TwinArray<T> g(count + shift);
  TwinArray<double> sum(1);
  g.fill(1);
  fill_value(sum, 0.125);
  const double expected = squared_norm(cpu_exec(), Ptr(g.host()).at(shift), count);
  CHECK(squared_norm(cuda_exec(), Ptr(g.device()).at(shift), count) == doctest::Approx(expected).epsilon(1e-12));
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    squared_norm_add(exec, on(exec, sum), Ptr(on(exec, g)).at(shift), count);
  }
  CHECK(sum[0] == 0.125 + expected);
  check_equal(sum, 1e-12, "squared_norm_add " + std::to_string(count));
}

}  // namespace

TEST_CASE("AdamW on the GPU, in 32 and in 8 bits, has the CPU's bits") {
  compare_sizes<float, float>();
  compare_sizes<float, bf16>();
  compare_sizes<bf16, bf16>();
  compare_sizes<bf16, float>();
}

TEST_CASE("8 bits: a gradient that is not finite clears its state and leaves its parameter") {
  const int64_t count = 600;
  TwinArray<bf16> p(count), g(count);
  TwinArray<float> absmax1(3), absmax2(3);
  TwinArray<uint8_t> state1(count), state2(count);
  p.fill(1);
  fill_gradient(g, 2);
  g[3] = bf16(NAN);
  g[300] = bf16(INFINITY);
  g[599] = bf16(-INFINITY);
  g.to_device();
  fill_value(absmax1, 0.5f);
  fill_value(absmax2, 0.5f);
  fill_value<uint8_t>(state1, 200);
  fill_value<uint8_t>(state2, 100);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    adamw8bit_update(exec, on(exec, p), on(exec, g), on(exec, state1), on(exec, state2), on(exec, absmax1),
                     on(exec, absmax2), count, options_at(3, 0.1f));
  }
  CHECK(state1[3] == 127);
  CHECK(state2[300] == 0);
  check_bits(p, "p");
  check_bits(state1, "state1");
  check_bits(state2, "state2");
  check_bits(absmax1, "absmax1");
  check_bits(absmax2, "absmax2");
}

TEST_CASE("stochastic rounding on the GPU draws the CPU's bits") {
  for (const int64_t count : {0, 1, 5, 8, 1003, 70000}) {
    for (const int64_t shift : {0, 1}) {
      TwinArray<float> x(count + shift);
      TwinArray<bf16> y(count + shift);
      x.fill(3);
      y.fill(4);
      for (int64_t i = 0; i + 20 < count; i += 50)
        x[i] = NAN, x[i + 1] = INFINITY, x[i + 2] = -INFINITY, x[i + 3] = 0.0f;
      x.to_device();
      for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
        stochastic_round(exec, on(exec, y) + shift, on(exec, x) + shift, count, 5, 6, 7, 8);
      }
      check_bits(y, "stochastic_round " + std::to_string(count));
    }
  }
}

TEST_CASE("the norm on the GPU equals the CPU's and is the same every time") {
  for (const int64_t count : {0, 1, 1000, 16384, 16385, 1000003}) {
    for (const int64_t shift : {0, 1}) {
      compare_norm<float>(count, shift);
      compare_norm<bf16>(count, shift);
    }
  }
  TwinArray<float> g(1000003);
  g.fill(2);
  const double first = squared_norm(cuda_exec(), g.device(), g.count());
  for (int run = 0; run < 10; ++run) CHECK(squared_norm(cuda_exec(), g.device(), g.count()) == first);
}

TEST_CASE("clipping without the host: the scale of clip_grad_norm_, and no update where the norm is not finite") {
  const int64_t count = 1000;
  for (const double squared : {0.0, 0.25, 1.0, 1e6, static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    for (const float max_norm : {0.0f, 1.0f, 0.3f}) {
      INFO("squared norm " << squared << ", limit " << max_norm);
      TwinArray<double> sum(1), losses(1), norm(1);
      TwinArray<float> scale(1), p(count), g(count), m(count), v(count), p8(count), absmax1(4), absmax2(4);
      TwinArray<uint8_t> state1(count), state2(count);
      fill_value(sum, squared);
      fill_value(losses, 3.0);
      p.fill(1);
      p8.fill(1);
      g.fill(2);
      for (TwinArray<float>* array : {&m, &v, &absmax1, &absmax2}) fill_value(*array, 0.0f);
      fill_value<uint8_t>(state1, 0);
      fill_value<uint8_t>(state2, 0);
      const float before = p[17];
      for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
        clip_scale(exec, on(exec, scale), on(exec, norm), on(exec, sum), on(exec, losses), max_norm);
        AdamWOptions options = options_at(1, 0.1f);
        options.device_gradient_scale = on(exec, scale);
        adamw_update(exec, on(exec, p), on(exec, g), on(exec, m), on(exec, v), count, options);
        adamw8bit_update(exec, on(exec, p8), on(exec, g), on(exec, state1), on(exec, state2), on(exec, absmax1),
                         on(exec, absmax2), count, options);
      }
      const float found = scale.from_device()[0];
      if (std::isfinite(squared)) {
        CHECK(found == scale[0]);
        CHECK(scale[0] ==
              (max_norm == 0.0f ? 1.0f : static_cast<float>(std::min(1.0, max_norm / (std::sqrt(squared) + 1e-6)))));
        CHECK(p[17] != before);
      } else {
        CHECK(std::isnan(scale[0]));
        CHECK(std::isnan(found));
        CHECK(p[17] == before);
      }
      check_bits(p, "p");
      check_bits(m, "m");
      check_bits(p8, "8-bit p");
      check_bits(state1, "state1");
    }
  }
}
