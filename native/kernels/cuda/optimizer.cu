// Every product, sum, quotient and root is rounded by itself, so that an update has the CPU's bits.
#include "kernels/optimizer.h"

#include <cmath>

#include "kernels/cuda/dynamic_code.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/philox.h"
#include "kernels/transfer.h"

namespace caravan::cuda {

namespace {

__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float quotient(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float root(float a) { return __fsqrt_rn(a); }

// ---------------------------------------------------------------------------------------------------------------------
// Stochastic rounding

/// The key and the shared counter words of one tensor's draws.
struct RoundingBits {
  uint32_t seed, step, use, micro;
  int64_t first;

  RoundingBits(uint32_t seed_, uint32_t step_, uint32_t parameter, uint32_t micro_, int64_t first_ = 0)
      : seed(seed_),
        step(step_),
        use(static_cast<uint32_t>(PhiloxUse::stochastic_rounding) | parameter),
        micro(micro_),
        first(first_) {}

  __device__ Philox4 group(int64_t i) const {
    const uint64_t at = static_cast<uint64_t>(first + i) / 4;
    return philox(seed, step, static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), use, micro);
  }
};

/// The optimizer's counter is apart from the accumulation's by the micro-batch.
constexpr uint32_t update_micro = 0xffffffffu;

__device__ __forceinline__ bf16 round_stochastically(float value, uint32_t random16) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bf16(value);
  return bf16::from_bits(static_cast<uint16_t>((bits + random16) >> 16));
}

/// y[i ..] = values: rounded stochastically where y is bf16. i is a multiple of N.
template <int N>
__device__ __forceinline__ void store_updated(float* y, const float (&values)[N], int64_t i, const RoundingBits&) {
  store(y + i, values);
}

template <int N>
__device__ __forceinline__ void store_updated(bf16* y, const float (&values)[N], int64_t i, const RoundingBits& bits) {
  if constexpr (N == 1) {
    const Philox4 words = bits.group(i);
    const uint32_t low = i % 2 == 0 ? words.word[0] : words.word[1];
    const uint32_t high = i % 2 == 0 ? words.word[2] : words.word[3];
    y[i] = round_stochastically(values[0], (i % 4 < 2 ? low : high) >> 16);
  } else {
    uint32_t pairs[N / 2];
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      const Philox4 words = bits.group(i + j);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const bf16 low = round_stochastically(values[j + k], words.word[k] >> 16);
        const bf16 high = round_stochastically(values[j + k + 1], words.word[k + 1] >> 16);
        pairs[(j + k) / 2] = low.bits | static_cast<uint32_t>(high.bits) << 16;
      }
    }
    if constexpr (N == 4) {
      *reinterpret_cast<uint2*>(y + i) = make_uint2(pairs[0], pairs[1]);
    } else {
      static_assert(N == 8);
      *reinterpret_cast<uint4*>(y + i) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
  }
}

struct StochasticRound {
  bf16* y;
  const float* x;
  RoundingBits bits;

  template <int N>
  __device__ void at(int64_t i) const {
    float v[N];
    load(v, x + i);
    store_updated(y, v, i, bits);
  }
};

// ---------------------------------------------------------------------------------------------------------------------
// Updates

/// AdamWOptions as each element needs them.
struct Step {
  float beta1, rest1, beta2, rest2, eps, decay, step_size, root_correction, gradient_scale;
  const float* device_gradient_scale;
  RoundingBits bits;

  explicit Step(const AdamWOptions& o)
      : beta1(o.beta1),
        rest1(1.0f - o.beta1),
        beta2(o.beta2),
        rest2(1.0f - o.beta2),
        eps(o.eps),
        decay(1.0f - o.lr * o.weight_decay),
        gradient_scale(o.gradient_scale),
        device_gradient_scale(o.device_gradient_scale),
        bits(o.seed, static_cast<uint32_t>(o.step), o.parameter, update_micro, o.first) {
    root_correction = static_cast<float>(std::sqrt(second_correction(o)));
  }

  static double first_correction(const AdamWOptions& o) {
    return 1.0 - std::pow(static_cast<double>(o.beta1), static_cast<double>(o.step));
  }
  static double second_correction(const AdamWOptions& o) {
    return 1.0 - std::pow(static_cast<double>(o.beta2), static_cast<double>(o.step));
  }

  /// NaN: nothing is to be updated.
  __device__ float scale() const {
    return device_gradient_scale == nullptr ? gradient_scale : mul(gradient_scale, *device_gradient_scale);
  }
};

template <typename P, typename G>
struct AdamW {
  P* p;
  const G* g;
  float *m, *v;
  Step step;

  template <int N>
  __device__ void at(int64_t i) const {
    const float scale = step.scale();
    if (isnan(scale)) return;
    float value[N], gradient[N], first[N], second[N];
    load(gradient, g + i);
    load(first, m + i);
    load(second, v + i);
    load(value, p + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float x = mul(gradient[j], scale);
      first[j] = add(first[j], mul(step.rest1, sub(x, first[j])));
      second[j] = add(mul(step.beta2, second[j]), mul(mul(step.rest2, x), x));
      const float denominator = add(quotient(root(second[j]), step.root_correction), step.eps);
      value[j] = sub(mul(value[j], step.decay), mul(step.step_size, quotient(first[j], denominator)));
    }
    store(m + i, first);
    store(v + i, second);
    store_updated(p, value, i, step.bits);
  }
};

constexpr int block_threads = 256;
constexpr int warps = block_threads / 32;
constexpr int lane_elements = adamw8bit_block / 32;

template <bool vector, typename T>
__device__ __forceinline__ void load_lane(float (&to)[lane_elements], const T* from, int64_t left) {
  if constexpr (vector) {
    load(to, from);
  } else {
#pragma unroll
    for (int j = 0; j < lane_elements; ++j) to[j] = j < left ? static_cast<float>(from[j]) : 0.0f;
  }
}

template <bool vector>
__device__ __forceinline__ void load_codes(uint8_t (&to)[lane_elements], const uint8_t* from, int64_t left) {
  if constexpr (vector) {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < lane_elements; ++j) to[j] = j < left ? from[j] : 0;
  }
}

template <bool vector>
__device__ __forceinline__ void store_codes(uint8_t* to, const uint8_t (&from)[lane_elements], int64_t left) {
  if constexpr (vector) {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < lane_elements; ++j) {
      if (j < left) to[j] = from[j];
    }
  }
}

/// One block of 256 elements by one warp, eight a lane; `left` elements of the lane's are there.
template <bool vector, typename P, typename G>
__device__ __forceinline__ void update_block(P* p, const G* g, uint8_t* state1, uint8_t* state2, float* absmax1,
                                             float* absmax2, const Step& step, float scale, bool decays,
                                             const float* code1, const float* code2, int64_t i, int64_t left) {
  alignas(8) uint8_t codes1[lane_elements];
  alignas(8) uint8_t codes2[lane_elements];
  float gradient[lane_elements], value[lane_elements], first[lane_elements], second[lane_elements];
  bool finite[lane_elements];
  load_lane<vector>(gradient, g + i, left);
  load_codes<vector>(codes1, state1 + i, left);
  load_codes<vector>(codes2, state2 + i, left);
  load_lane<vector>(value, p + i, left);
  const float before1 = *absmax1, before2 = *absmax2;
  float largest1 = 0.0f, largest2 = 0.0f;
#pragma unroll
  for (int j = 0; j < lane_elements; ++j) {
    const float x = mul(gradient[j], scale);
    finite[j] = isfinite(x);
    first[j] = add(mul(mul(code1[codes1[j]], before1), step.beta1), mul(step.rest1, x));
    second[j] = add(mul(mul(code2[codes2[j]], before2), step.beta2), mul(mul(step.rest2, x), x));
    if (!finite[j] || (!vector && j >= left)) first[j] = second[j] = 0.0f;
    largest1 = fmaxf(largest1, fabsf(first[j]));
    largest2 = fmaxf(largest2, fabsf(second[j]));
  }
  largest1 = warp_max(largest1);
  largest2 = warp_max(largest2);
  __syncwarp();
  if (threadIdx.x % 32 == 0) *absmax1 = largest1, *absmax2 = largest2;
  const float eps = mul(step.root_correction, step.eps);
#pragma unroll
  for (int j = 0; j < lane_elements; ++j) {
    if (finite[j]) {
      value[j] = add(value[j], mul(step.step_size, quotient(first[j], add(root(second[j]), eps))));
      if (decays) value[j] = mul(value[j], step.decay);
    }
    int code = nearest_dynamic_code(code1, largest1 > 0.0f ? quotient(first[j], largest1) : 0.0f);
    // A moment must not change its sign by rounding.
    if (signbit(code1[code]) != signbit(first[j])) code += first[j] > 0.0f ? 1 : -1;
    codes1[j] = static_cast<uint8_t>(code);
    codes2[j] =
        static_cast<uint8_t>(nearest_dynamic_code(code2, largest2 > 0.0f ? quotient(second[j], largest2) : 0.0f));
  }
  store_codes<vector>(state1 + i, codes1, left);
  store_codes<vector>(state2 + i, codes2, left);
  if constexpr (sizeof(P) == 4 && vector) {
    store(p + i, value);
  } else {
    // An element that is not updated keeps its bits: in bf16 it would be rounded, which it is not on the CPU either.
#pragma unroll
    for (int j = 0; j < lane_elements; j += 4) {
      const Philox4 words = sizeof(P) == 2 ? step.bits.group(i + j) : Philox4{};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if ((!vector && j + k >= left) || !finite[j + k]) continue;
        if constexpr (sizeof(P) == 4) {
          p[i + j + k] = value[j + k];
        } else {
          p[i + j + k] = round_stochastically(value[j + k], words.word[k] >> 16);
        }
      }
    }
  }
}

template <typename P, typename G>
__global__ void __launch_bounds__(block_threads)
    adamw8bit_kernel(P* p, const G* g, uint8_t* state1, uint8_t* state2, float* absmax1, float* absmax2, int64_t count,
                     const Step step, bool decays, bool vector, const __grid_constant__ DynamicCode signed_code,
                     const __grid_constant__ DynamicCode unsigned_code) {
  __shared__ float code1[256], code2[256];
  for (int i = threadIdx.x; i < 256; i += block_threads) {
    code1[i] = signed_code.value[i];
    code2[i] = unsigned_code.value[i];
  }
  __syncthreads();
  const float scale = step.scale();
  if (isnan(scale)) return;
  const int64_t blocks = (count + adamw8bit_block - 1) / adamw8bit_block;
  for (int64_t block = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32; block < blocks;
       block += static_cast<int64_t>(gridDim.x) * warps) {
    const int64_t i = block * adamw8bit_block + threadIdx.x % 32 * lane_elements;
    if (vector && (block + 1) * adamw8bit_block <= count) {
      update_block<true>(p, g, state1, state2, absmax1 + block, absmax2 + block, step, scale, decays, code1, code2, i,
                         lane_elements);
    } else {
      update_block<false>(p, g, state1, state2, absmax1 + block, absmax2 + block, step, scale, decays, code1, code2, i,
                          count - i);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Norm

constexpr int64_t norm_block = 16384;

template <typename T>
__global__ void __launch_bounds__(block_threads)
    partial_squares_kernel(double* partial, const T* g, int64_t count, bool vector) {
  __shared__ double scratch[warps];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * norm_block, last = min(count, first + norm_block);
  double sum = 0.0;
  const auto add_square = [&](float x) { sum += static_cast<double>(x) * static_cast<double>(x); };
  if (vector && last - first == norm_block) {
    for (int64_t i = first + static_cast<int64_t>(threadIdx.x) * pack; i < last; i += block_threads * pack) {
      float v[pack];
      load(v, g + i);
#pragma unroll
      for (int j = 0; j < pack; ++j) add_square(v[j]);
    }
  } else {
    for (int64_t i = first + threadIdx.x; i < last; i += block_threads) add_square(static_cast<float>(g[i]));
  }
  sum = block_sum<block_threads>(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(block_threads)
    add_partials_kernel(double* sum, const double* partial, int64_t blocks) {
  __shared__ double scratch[warps];
  double mine = 0.0;
  for (int64_t i = threadIdx.x; i < blocks; i += block_threads) mine += partial[i];
  mine = block_sum<block_threads>(mine, scratch);
  if (threadIdx.x == 0) *sum += mine;
}

int64_t norm_blocks(int64_t count) { return (count + norm_block - 1) / norm_block; }

/// `partial` (norm_blocks(count)).
void add_squares(const Exec& exec, double* sum, double* partial, ConstPtr g, int64_t count) {
  if (count == 0) return;
  const int64_t blocks = norm_blocks(count);
  dispatch(g.dtype, [&]<typename T>() {
    partial_squares_kernel<<<static_cast<unsigned>(blocks), block_threads, 0, stream_of(exec)>>>(
        partial, g.as<T>(), count, aligned16(g.as<T>()));
  });
  add_partials_kernel<<<1, block_threads, 0, stream_of(exec)>>>(sum, partial, blocks);
  check_launch("squared_norm");
}

__global__ void clip_scale_kernel(float* scale, double* norm, const double* squared, const double* losses,
                                  float max_norm) {
  *norm = sqrt(*squared);
  *scale = 1.0f;
  if (max_norm > 0.0f) *scale = static_cast<float>(fmin(1.0, static_cast<double>(max_norm) / (*norm + 1e-6)));
  if (!isfinite(*norm) || !isfinite(*losses)) *scale = NAN;
}

}  // namespace

void adamw_update(const Exec& exec, Ptr p, ConstPtr g, float* m, float* v, int64_t count, const AdamWOptions& options) {
  Step step(options);
  step.step_size = static_cast<float>(static_cast<double>(options.lr) / Step::first_correction(options));
  dispatch(p.dtype, [&]<typename P>() {
    dispatch(g.dtype, [&]<typename G>() {
      each_element<4>(exec, AdamW<P, G>{p.as<P>(), g.as<G>(), m, v, step}, count, aligned16(p.as<P>(), g.as<G>(), m, v),
                      "adamw_update");
    });
  });
}

void adamw8bit_update(const Exec& exec, Ptr p, ConstPtr g, uint8_t* state1, uint8_t* state2, float* absmax1,
                      float* absmax2, int64_t count, const AdamWOptions& options) {
  if (count == 0) return;
  Step step(options);
  step.step_size = static_cast<float>(-static_cast<double>(options.lr) * std::sqrt(Step::second_correction(options)) /
                                      Step::first_correction(options));
  const DynamicCode signed_code(dynamic_code_signed), unsigned_code(dynamic_code_unsigned);
  const unsigned needed = blocks_for(count, adamw8bit_block * warps);
  const unsigned blocks = std::min(needed, static_cast<unsigned>(exec.cuda->multiprocessors()) * 8);
  dispatch(p.dtype, [&]<typename P>() {
    dispatch(g.dtype, [&]<typename G>() {
      adamw8bit_kernel<<<blocks, block_threads, 0, stream_of(exec)>>>(
          p.as<P>(), g.as<G>(), state1, state2, absmax1, absmax2, count, step, options.weight_decay > 0.0f,
          aligned16(p.as<P>(), g.as<G>(), state1, state2), signed_code, unsigned_code);
    });
  });
  check_launch("adamw8bit_update");
}

double squared_norm(const Exec& exec, ConstPtr g, int64_t count) {
  double* const sum = exec.cuda->workspace<double>(1 + norm_blocks(count));
  zero_bytes(exec, sum, sizeof(double));
  add_squares(exec, sum, sum + 1, g, count);
  double result = 0.0;
  download(exec, &result, sum, sizeof result);
  return result;
}

void squared_norm_add(const Exec& exec, double* sum, ConstPtr g, int64_t count) {
  add_squares(exec, sum, exec.cuda->workspace<double>(norm_blocks(count)), g, count);
}

void clip_scale(const Exec& exec, float* scale, double* norm, const double* squared, const double* losses,
                float max_norm) {
  clip_scale_kernel<<<1, 1, 0, stream_of(exec)>>>(scale, norm, squared, losses, max_norm);
  check_launch("clip_scale");
}

void stochastic_round(const Exec& exec, bf16* y, const float* x, int64_t count, uint32_t seed, uint32_t step,
                      uint32_t parameter, uint32_t micro) {
  each_element(exec, StochasticRound{y, x, RoundingBits(seed, step, parameter, micro)}, count, aligned16(y, x),
               "stochastic_round");
}

}  // namespace caravan::cuda
