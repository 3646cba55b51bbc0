// The loops of activation_kernels.h for one instruction set.
#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

// ---------------------------------------------------------------------------------------------------------------------
// Formulas

CARAVAN_INLINE Vec sigmoid(Vec x) { return all(1.0f) / (all(1.0f) + exp(zero() - x)); }

/// Phi(x), the distribution function of the normal distribution.
CARAVAN_INLINE Vec normal_cdf(Vec x) { return all(0.5f) * (all(1.0f) + erf(x * all(0.70710678118654752f))); }
CARAVAN_INLINE Vec normal_density(Vec x) { return all(0.39894228040143268f) * exp(all(-0.5f) * x * x); }

struct Swiglu {
  CARAVAN_INLINE Vec operator()(Vec gate, Vec up) const { return gate * sigmoid(gate) * up; }
};
struct Gelu {
  CARAVAN_INLINE Vec operator()(Vec x) const { return x * normal_cdf(x); }
};
struct GeluGradient {
  CARAVAN_INLINE Vec operator()(Vec dout, Vec x) const { return dout * (normal_cdf(x) + x * normal_density(x)); }
};

// ---------------------------------------------------------------------------------------------------------------------
// Loops: a last part vector goes through a padded copy, so that every element is computed by the same instructions

template <typename T>
struct Part {
  T values[Vec::width] = {};

  Part(const T* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = from[i];
  }
  void write(T* to, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) to[i] = values[i];
  }
};

template <typename T, typename F, typename... In>
CARAVAN_INLINE void map(T* out, int64_t first, int64_t last, F f, const In*... in) {
  int64_t i = first;
  for (; i + Vec::width <= last; i += Vec::width) store(out + i, f(load(in + i)...));
  if (i < last) {
    Part<T> part(out + i, 0);
    store(part.values, f(load(Part<T>(in + i, last - i).values)...));
    part.write(out + i, last - i);
  }
}

template <typename T>
CARAVAN_INLINE void swiglu_gradients(T* dgate, T* dup, const T* dout, const T* gate, const T* up) {
  const Vec d = load(dout);
  const Vec x = load(gate);
  const Vec u = load(up);
  const Vec s = sigmoid(x);
  store(dgate, d * u * s * (all(1.0f) + x * (all(1.0f) - s)));
  store(dup, d * x * s);
}

template <typename T>
void swiglu_backward_typed(T* dgate, T* dup, const T* dout, const T* gate, const T* up, int64_t first, int64_t last) {
  int64_t i = first;
  for (; i + Vec::width <= last; i += Vec::width) swiglu_gradients(dgate + i, dup + i, dout + i, gate + i, up + i);
  if (i < last) {
    const int64_t count = last - i;
    Part<T> g(gate + i, count), u(up + i, count);
    const Part<T> d(dout + i, count);
    swiglu_gradients(g.values, u.values, d.values, g.values, u.values);
    g.write(dgate + i, count);
    u.write(dup + i, count);
  }
}

template <typename T, typename S>
CARAVAN_INLINE void convert_typed(bool accumulate, T* y, const S* x, int64_t first, int64_t last) {
  int64_t i = first;
  if (accumulate) {
    for (; i + Vec::width <= last; i += Vec::width) store(y + i, load(y + i) + load(x + i));
  } else {
    for (; i + Vec::width <= last; i += Vec::width) store(y + i, load(x + i));
  }
  for (; i < last; ++i) store_one(y + i, accumulate ? widen(y[i]) + widen(x[i]) : widen(x[i]));
}

// ---------------------------------------------------------------------------------------------------------------------
// By type

template <typename T>
void convert_to(bool x_bf16, bool accumulate, T* y, const void* x, int64_t first, int64_t last) {
  if (x_bf16) {
    convert_typed(accumulate, y, static_cast<const bf16_bits*>(x), first, last);
  } else {
    convert_typed(accumulate, y, static_cast<const float*>(x), first, last);
  }
}

void convert(bool y_bf16, bool x_bf16, bool accumulate, void* y, const void* x, int64_t first, int64_t last) {
  if (y_bf16) {
    convert_to(x_bf16, accumulate, static_cast<bf16_bits*>(y), x, first, last);
  } else {
    convert_to(x_bf16, accumulate, static_cast<float*>(y), x, first, last);
  }
}

void swiglu_forward(bool bf16, void* out, const void* gate, const void* up, int64_t first, int64_t last) {
  if (bf16) {
    map(static_cast<bf16_bits*>(out), first, last, Swiglu{}, static_cast<const bf16_bits*>(gate),
        static_cast<const bf16_bits*>(up));
  } else {
    map(static_cast<float*>(out), first, last, Swiglu{}, static_cast<const float*>(gate),
        static_cast<const float*>(up));
  }
}

void swiglu_backward(bool bf16, void* dgate, void* dup, const void* dout, const void* gate, const void* up,
                     int64_t first, int64_t last) {
  if (bf16) {
    swiglu_backward_typed(static_cast<bf16_bits*>(dgate), static_cast<bf16_bits*>(dup),
                          static_cast<const bf16_bits*>(dout), static_cast<const bf16_bits*>(gate),
                          static_cast<const bf16_bits*>(up), first, last);
  } else {
    swiglu_backward_typed(static_cast<float*>(dgate), static_cast<float*>(dup), static_cast<const float*>(dout),
                          static_cast<const float*>(gate), static_cast<const float*>(up), first, last);
  }
}

void gelu_forward(bool bf16, void* out, const void* x, int64_t first, int64_t last) {
  if (bf16) {
    map(static_cast<bf16_bits*>(out), first, last, Gelu{}, static_cast<const bf16_bits*>(x));
  } else {
    map(static_cast<float*>(out), first, last, Gelu{}, static_cast<const float*>(x));
  }
}

void gelu_backward(bool bf16, void* dx, const void* dout, const void* x, int64_t first, int64_t last) {
  if (bf16) {
    map(static_cast<bf16_bits*>(dx), first, last, GeluGradient{}, static_cast<const bf16_bits*>(dout),
        static_cast<const bf16_bits*>(x));
  } else {
    map(static_cast<float*>(dx), first, last, GeluGradient{}, static_cast<const float*>(dout),
        static_cast<const float*>(x));
  }
}

}  // namespace

extern const ActivationKernels activation;
const ActivationKernels activation = {swiglu_forward, swiglu_backward, gelu_forward, gelu_backward, convert};

}  // namespace caravan::cpu::CARAVAN_ISA
