#include "kernels/activation.h"

#include "kernels/cuda/vector.cuh"

namespace caravan::cuda {

namespace {

/// In bf16 the fast exponential and division are exact to far below a rounding.
template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 4) return 1.0f / (1.0f + expf(-x));
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ __forceinline__ float normal_density(float x) { return 0.39894228040143268f * __expf(-0.5f * x * x); }

template <typename T>
struct SwigluForward {
  T* out;
  const T *gate, *up;

  template <int N>
  __device__ void at(int64_t i) const {
    float g[N], u[N];
    load(g, gate + i);
    load(u, up + i);
#pragma unroll
    for (int j = 0; j < N; ++j) u[j] *= g[j] * sigmoid<T>(g[j]);
    store(out + i, u);
  }
};

template <typename T>
struct SwigluBackward {
  T *dgate, *dup;
  const T *dout, *gate, *up;

  template <int N>
  __device__ void at(int64_t i) const {
    float d[N], g[N], u[N];
    load(d, dout + i);
    load(g, gate + i);
    load(u, up + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float x = g[j], s = sigmoid<T>(x);
      g[j] = d[j] * u[j] * s * (1.0f + x * (1.0f - s));
      u[j] = d[j] * x * s;
    }
    store(dgate + i, g);
    store(dup + i, u);
  }
};

template <typename T>
struct GeluForward {
  T* out;
  const T* x;

  template <int N>
  __device__ void at(int64_t i) const {
    float v[N];
    load(v, x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] *= normal_cdf(v[j]);
    store(out + i, v);
  }
};

template <typename T>
struct GeluBackward {
  T* dx;
  const T *dout, *x;

  template <int N>
  __device__ void at(int64_t i) const {
    float d[N], v[N];
    load(d, dout + i);
    load(v, x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) d[j] *= normal_cdf(v[j]) + v[j] * normal_density(v[j]);
    store(dx + i, d);
  }
};

template <typename T, typename S, bool accumulate>
struct Convert {
  T* y;
  const S* x;

  template <int N>
  __device__ void at(int64_t i) const {
    float v[N];
    load(v, x + i);
    if constexpr (accumulate) {
      float before[N];
      load(before, y + i);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] += before[j];
    }
    store(y + i, v);
  }
};

template <bool accumulate>
void convert_typed(const Exec& exec, Ptr y, ConstPtr x, int64_t count, const char* operation) {
  dispatch(y.dtype, [&]<typename T>() {
    dispatch(x.dtype, [&]<typename S>() {
      each_element(exec, Convert<T, S, accumulate>{y.as<T>(), x.as<S>()}, count, aligned16(y.as<T>(), x.as<S>()),
                   operation);
    });
  });
}

}  // namespace

void swiglu_forward(const Exec& exec, Ptr out, ConstPtr gate, ConstPtr up, int64_t count) {
  dispatch(out.dtype, [&]<typename T>() {
    each_element(exec, SwigluForward<T>{out.as<T>(), gate.as<T>(), up.as<T>()}, count,
                 aligned16(out.as<T>(), gate.as<T>(), up.as<T>()), "swiglu_forward");
  });
}

void swiglu_backward(const Exec& exec, Ptr dgate, Ptr dup, ConstPtr dout, ConstPtr gate, ConstPtr up, int64_t count) {
  dispatch(dgate.dtype, [&]<typename T>() {
    each_element(exec, SwigluBackward<T>{dgate.as<T>(), dup.as<T>(), dout.as<T>(), gate.as<T>(), up.as<T>()}, count,
                 aligned16(dgate.as<T>(), dup.as<T>(), dout.as<T>(), gate.as<T>(), up.as<T>()), "swiglu_backward");
  });
}

void gelu_forward(const Exec& exec, Ptr out, ConstPtr x, int64_t count) {
  dispatch(out.dtype, [&]<typename T>() {
    each_element(exec, GeluForward<T>{out.as<T>(), x.as<T>()}, count, aligned16(out.as<T>(), x.as<T>()),
                 "gelu_forward");
  });
}

void gelu_backward(const Exec& exec, Ptr dx, ConstPtr dout, ConstPtr x, int64_t count) {
  dispatch(dx.dtype, [&]<typename T>() {
    each_element(exec, GeluBackward<T>{dx.as<T>(), dout.as<T>(), x.as<T>()}, count,
                 aligned16(dx.as<T>(), dout.as<T>(), x.as<T>()), "gelu_backward");
  });
}

void add_inplace(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  convert_typed<true>(exec, y, x, count, "add_inplace");
}

void convert(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  if (y.dtype != x.dtype) return convert_typed<false>(exec, y, x, count, "convert");
  check(cudaMemcpyAsync(y.data, x.data, static_cast<size_t>(count) * size_of(y.dtype), cudaMemcpyDeviceToDevice,
                        stream_of(exec)),
        "convert");
}

void fill_zero(const Exec& exec, Ptr y, int64_t count) {
  check(cudaMemsetAsync(y.data, 0, static_cast<size_t>(count) * size_of(y.dtype), stream_of(exec)), "fill_zero");
}

}  // namespace caravan::cuda
