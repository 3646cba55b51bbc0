#include "kernels/activation.h"

#include <cmath>
#include <cstring>
#include <numbers>

namespace caravan::cpu {
namespace {

constexpr int64_t grain = 4096;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
/// Phi(x), the distribution function of the normal distribution.
float normal_cdf(float x) { return 0.5f * (1.0f + std::erf(x * static_cast<float>(1.0 / std::numbers::sqrt2))); }
float normal_density(float x) {
  return static_cast<float>(std::numbers::inv_sqrtpi / std::numbers::sqrt2) * std::exp(-0.5f * x * x);
}

/// out[i] = f(i) over [0, count).
template <typename T, typename F>
void for_each(const Exec& exec, T* out, int64_t count, F&& f) {
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) out[i] = static_cast<T>(f(i));
  });
}

}  // namespace

void swiglu_forward(const Exec& exec, Ptr out, ConstPtr gate, ConstPtr up, int64_t count) {
  dispatch(gate.dtype, [&]<typename T>() {
    for_each(exec, out.as<T>(), count, [g = gate.as<T>(), u = up.as<T>()](int64_t i) {
      const float x = g[i];
      return x * sigmoid(x) * static_cast<float>(u[i]);
    });
  });
}

void swiglu_backward(const Exec& exec, Ptr dgate, Ptr dup, ConstPtr dout, ConstPtr gate, ConstPtr up, int64_t count) {
  dispatch(gate.dtype, [&]<typename T>() {
    parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const float x = gate.as<T>()[i];
        const float u = up.as<T>()[i];
        const float d = dout.as<T>()[i];
        const float s = sigmoid(x);
        dgate.as<T>()[i] = static_cast<T>(d * u * s * (1.0f + x * (1.0f - s)));
        dup.as<T>()[i] = static_cast<T>(d * x * s);
      }
    });
  });
}

void gelu_forward(const Exec& exec, Ptr out, ConstPtr x, int64_t count) {
  dispatch(x.dtype, [&]<typename T>() {
    for_each(exec, out.as<T>(), count, [p = x.as<T>()](int64_t i) {
      const float value = p[i];
      return value * normal_cdf(value);
    });
  });
}

void gelu_backward(const Exec& exec, Ptr dx, ConstPtr dout, ConstPtr x, int64_t count) {
  dispatch(x.dtype, [&]<typename T>() {
    for_each(exec, dx.as<T>(), count, [d = dout.as<T>(), p = x.as<T>()](int64_t i) {
      const float value = p[i];
      return static_cast<float>(d[i]) * (normal_cdf(value) + value * normal_density(value));
    });
  });
}

void add_inplace(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  dispatch(y.dtype, [&]<typename T>() {
    dispatch(x.dtype, [&]<typename S>() {
      for_each(exec, y.as<T>(), count, [a = y.as<T>(), b = x.as<S>()](int64_t i) {
        return static_cast<float>(a[i]) + static_cast<float>(b[i]);
      });
    });
  });
}

void convert(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  dispatch(y.dtype, [&]<typename T>() {
    dispatch(x.dtype, [&]<typename S>() {
      for_each(exec, y.as<T>(), count, [p = x.as<S>()](int64_t i) { return static_cast<float>(p[i]); });
    });
  });
}

void fill_zero(const Exec& exec, Ptr y, int64_t count) {
  parallel_for(exec, count, 16 * grain, [&](int64_t first, int64_t last) {
    std::memset(y.at(first).data, 0, static_cast<size_t>(last - first) * size_of(y.dtype));
  });
}

}  // namespace caravan::cpu
