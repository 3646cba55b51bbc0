// AdamW written out in fp64, as PyTorch and as bitsandbytes define it, and the state of the 8-bit form.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/nf4.h"
#include "kernels/optimizer.h"
#include "typed_array.h"

namespace caravan::test {

inline AdamWOptions options_at(int64_t step, float weight_decay, float gradient_scale = 1.0f) {
  AdamWOptions options;
  options.lr = 1e-3f;
  options.weight_decay = weight_decay;
  options.step = step;
  options.gradient_scale = gradient_scale;
  options.seed = 99;
  options.parameter = 4;
  return options;
}

/// torch.optim.AdamW (not amsgrad) in fp64.
struct TorchAdamW {
  std::vector<double> p, m, v;

  explicit TorchAdamW(const TypedArray& initial) : m(static_cast<size_t>(initial.count())), v(m) {
    for (int64_t i = 0; i < initial.count(); ++i) p.push_back(initial[i]);
  }
  void step(const TypedArray& g, const AdamWOptions& o) {
    const double b1 = o.beta1, b2 = o.beta2, t = static_cast<double>(o.step);
    for (size_t i = 0; i < p.size(); ++i) {
      const double gradient = static_cast<double>(g[static_cast<int64_t>(i)]) * o.gradient_scale;
      p[i] *= 1.0 - static_cast<double>(o.lr) * o.weight_decay;
      m[i] = b1 * m[i] + (1.0 - b1) * gradient;
      v[i] = b2 * v[i] + (1.0 - b2) * gradient * gradient;
      const double denominator = std::sqrt(v[i]) / std::sqrt(1.0 - std::pow(b2, t)) + o.eps;
      p[i] -= o.lr / (1.0 - std::pow(b1, t)) * m[i] / denominator;
    }
  }
};

/// Gradients whose size varies by block, as a model's do, with some exact zeros.
inline TypedArray make_gradient(DType dtype, int64_t count, uint32_t seed) {
  TypedArray g(dtype, count, seed, 0.01f);
  for (int64_t i = 0; i < count; ++i) {
    const float scale = std::pow(10.0f, static_cast<float>(i / 256 % 5) - 3.0f);
    cpu::store_element(g.ptr(), i, i % 97 == 0 ? 0.0f : g[i] * scale);
  }
  return g;
}

struct EightBit {
  std::vector<uint8_t> state1, state2;
  std::vector<float> absmax1, absmax2;

  explicit EightBit(int64_t count)
      : state1(static_cast<size_t>(count)),
        state2(state1),
        absmax1(static_cast<size_t>((count + adamw8bit_block - 1) / adamw8bit_block)),
        absmax2(absmax1) {}
  void update(const Exec& exec, TypedArray& p, const TypedArray& g, const AdamWOptions& options) {
    adamw8bit_update(exec, p.ptr(), g.ptr(), state1.data(), state2.data(), absmax1.data(), absmax2.data(), p.count(),
                     options);
  }
  bool operator==(const EightBit&) const = default;
};

inline uint8_t nearest_code(const std::array<float, 256>& code, double value) {
  size_t best = 0;
  for (size_t i = 1; i < 256; ++i) {
    if (std::fabs(code[i] - value) < std::fabs(code[best] - value)) best = i;
  }
  return static_cast<uint8_t>(best);
}

/// bitsandbytes' blockwise AdamW in fp64 from the codes of the step before, block by block.
struct BlockwiseStep {
  std::vector<double> p, first, second;
  std::vector<double> absmax1, absmax2;

  BlockwiseStep(const TypedArray& before, const TypedArray& g, const EightBit& state, const AdamWOptions& o) {
    const double b1 = o.beta1, b2 = o.beta2, t = static_cast<double>(o.step);
    const double root = std::sqrt(1.0 - std::pow(b2, t));
    const double step_size = -o.lr * root / (1.0 - std::pow(b1, t));
    absmax1.assign(state.absmax1.size(), 0.0);
    absmax2.assign(state.absmax1.size(), 0.0);
    for (int64_t i = 0; i < before.count(); ++i) {
      const size_t at = static_cast<size_t>(i), block = at / adamw8bit_block;
      const double gradient = static_cast<double>(g[i]) * o.gradient_scale;
      const bool finite = std::isfinite(gradient);
      const double old1 = static_cast<double>(dynamic_code_signed[state.state1[at]]) * state.absmax1[block];
      const double old2 = static_cast<double>(dynamic_code_unsigned[state.state2[at]]) * state.absmax2[block];
      first.push_back(finite ? old1 * b1 + (1.0 - b1) * gradient : 0.0);
      second.push_back(finite ? old2 * b2 + (1.0 - b2) * gradient * gradient : 0.0);
      absmax1[block] = std::max(absmax1[block], std::fabs(first[at]));
      absmax2[block] = std::max(absmax2[block], second[at]);
      p.push_back(before[i]);
      if (!finite) continue;
      p[at] += step_size * first[at] / (std::sqrt(second[at]) + root * o.eps);
      if (o.weight_decay > 0.0f) p[at] *= 1.0 - static_cast<double>(o.lr) * o.weight_decay;
    }
  }
  uint8_t code1(size_t i) const {
    const double absmax = absmax1[i / adamw8bit_block];
    const double value = absmax > 0.0 ? first[i] / absmax : 0.0;
    uint8_t code = nearest_code(dynamic_code_signed, value);
    if (std::signbit(dynamic_code_signed[code]) != std::signbit(value)) code += value > 0.0 ? 1 : -1;
    return code;
  }
  uint8_t code2(size_t i) const {
    const double absmax = absmax2[i / adamw8bit_block];
    return nearest_code(dynamic_code_unsigned, absmax > 0.0 ? second[i] / absmax : 0.0);
  }
};

/// How many codes differ; fails where one differs by more than one.
inline int64_t count_neighbours(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, const char* what) {
  REQUIRE(a.size() == b.size());
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    ++different;
    if (std::abs(int{a[i]} - int{b[i]}) > 1) FAIL_CHECK(what << " " << i << ": " << int{a[i]} << ", not " << int{b[i]});
  }
  return different;
}

}  // namespace caravan::test
