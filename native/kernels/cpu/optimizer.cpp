#include "kernels/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/element.h"
#include "kernels/nf4.h"
#include "kernels/philox.h"

namespace caravan::cpu {
namespace {

constexpr int64_t grain = 4096;
constexpr int64_t norm_block = 16384;

/// Upper half of value + 16 random bits below it: rounds up with the probability of the remainder. NaN and infinities
/// have no remainder to add to.
bf16 round_stochastically(float value, uint32_t random16) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bf16(value);
  return bf16::from_bits(static_cast<uint16_t>((bits + random16) >> 16));
}

/// The 16 random bits of element i of a parameter.
class RoundingBits {
 public:
  RoundingBits(uint32_t seed, uint32_t step, uint32_t parameter, uint32_t micro, int64_t first = 0)
      : seed_(seed), step_(step), parameter_(parameter), micro_(micro), first_(first) {}

  uint32_t operator()(int64_t i) {
    const auto group = static_cast<uint64_t>(first_ + i) / 4;
    if (group != cached_) {
      words_ = philox(seed_, step_, static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32),
                      static_cast<uint32_t>(PhiloxUse::stochastic_rounding) | parameter_, micro_);
      cached_ = group;
    }
    return words_.word[i % 4] >> 16;
  }

 private:
  uint32_t seed_, step_, parameter_, micro_;
  int64_t first_;
  uint64_t cached_ = ~uint64_t{0};
  Philox4 words_{};
};

/// An updated parameter in its own type. The optimizer's counter is apart from the accumulation's by the micro-batch.
constexpr uint32_t update_micro = 0xffffffffu;

struct BiasCorrection {
  double first, second;
};
BiasCorrection bias_correction(const AdamWOptions& o) {
  return {1.0 - std::pow(static_cast<double>(o.beta1), static_cast<double>(o.step)),
          1.0 - std::pow(static_cast<double>(o.beta2), static_cast<double>(o.step))};
}

/// What the gradients are multiplied by; NaN where nothing is to be updated.
float gradient_scale(const AdamWOptions& o) {
  return o.device_gradient_scale == nullptr ? o.gradient_scale : o.gradient_scale * *o.device_gradient_scale;
}

}  // namespace

void adamw_update(const Exec& exec, Ptr p, ConstPtr g, float* m, float* v, int64_t count, const AdamWOptions& o) {
  // torch.optim.AdamW: decay, moments, then p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps).
  const auto [first_correction, second_correction] = bias_correction(o);
  const auto step_size = static_cast<float>(static_cast<double>(o.lr) / first_correction);
  const auto root_correction = static_cast<float>(std::sqrt(second_correction));
  const float decay = 1.0f - o.lr * o.weight_decay;
  const float scale = gradient_scale(o);
  if (std::isnan(scale)) return;
  parallel_for(exec, count, grain, [&](int64_t begin, int64_t end) {
    RoundingBits random{o.seed, static_cast<uint32_t>(o.step), o.parameter, update_micro, o.first};
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = load_element(g, i) * scale;
      m[i] = m[i] + (1.0f - o.beta1) * (gradient - m[i]);
      v[i] = o.beta2 * v[i] + (1.0f - o.beta2) * gradient * gradient;
      const float value = load_element(p, i) * decay - step_size * (m[i] / (std::sqrt(v[i]) / root_correction + o.eps));
      if (p.dtype == DType::f32)
        p.as<float>()[i] = value;
      else
        p.as<bf16>()[i] = round_stochastically(value, random(i));
    }
  });
}

void adamw8bit_update(const Exec& exec, Ptr p, ConstPtr g, uint8_t* state1, uint8_t* state2, float* absmax1,
                      float* absmax2, int64_t count, const AdamWOptions& o) {
  // bitsandbytes, blockwise: dequantise, update in fp32, new absmax per block, update p, requantise.
  const auto [first_correction, second_correction] = bias_correction(o);
  const auto root_correction = static_cast<float>(std::sqrt(second_correction));
  const auto step_size =
      static_cast<float>(-static_cast<double>(o.lr) * std::sqrt(second_correction) / first_correction);
  const float decay = 1.0f - o.lr * o.weight_decay;
  const float scale = gradient_scale(o);
  if (std::isnan(scale)) return;
  const int64_t blocks = (count + adamw8bit_block - 1) / adamw8bit_block;
  parallel_for(exec, blocks, 4, [&](int64_t begin, int64_t end) {
    float first[adamw8bit_block], second[adamw8bit_block];
    bool finite[adamw8bit_block];
    RoundingBits random{o.seed, static_cast<uint32_t>(o.step), o.parameter, update_micro, o.first};
    for (int64_t block = begin; block < end; ++block) {
      const int64_t at = block * adamw8bit_block;
      const int64_t n = std::min(adamw8bit_block, count - at);
      float largest1 = 0.0f, largest2 = 0.0f;
      for (int64_t i = 0; i < n; ++i) {
        const float gradient = load_element(g, at + i) * scale;
        finite[i] = std::isfinite(gradient);
        if (finite[i]) {
          first[i] = dynamic_code_signed[state1[at + i]] * absmax1[block] * o.beta1 + (1.0f - o.beta1) * gradient;
          second[i] =
              dynamic_code_unsigned[state2[at + i]] * absmax2[block] * o.beta2 + (1.0f - o.beta2) * gradient * gradient;
        } else {
          first[i] = second[i] = 0.0f;
        }
        largest1 = std::max(largest1, std::fabs(first[i]));
        largest2 = std::max(largest2, std::fabs(second[i]));
      }
      absmax1[block] = largest1;
      absmax2[block] = largest2;
      for (int64_t i = 0; i < n; ++i) {
        if (finite[i]) {
          float value = load_element(p, at + i);
          value += step_size * (first[i] / (std::sqrt(second[i]) + root_correction * o.eps));
          if (p.dtype == DType::f32) {
            if (o.weight_decay > 0.0f) value *= decay;
            p.as<float>()[at + i] = value;
          } else {
            if (o.weight_decay > 0.0f) value *= decay;
            p.as<bf16>()[at + i] = round_stochastically(value, random(at + i));
          }
        }
        uint8_t code = quantize_dynamic(dynamic_code_signed, largest1 > 0.0f ? first[i] / largest1 : 0.0f);
        // A moment must not change its sign by rounding.
        if (std::signbit(dynamic_code_signed[code]) != std::signbit(first[i])) code += first[i] > 0.0f ? 1 : -1;
        state1[at + i] = code;
        state2[at + i] = quantize_dynamic(dynamic_code_unsigned, largest2 > 0.0f ? second[i] / largest2 : 0.0f);
      }
    }
  });
}

double squared_norm(const Exec& exec, ConstPtr g, int64_t count) {
  const int64_t blocks = (count + norm_block - 1) / norm_block;
  std::vector<double> partial(static_cast<size_t>(blocks));
  parallel_for(exec, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      double lanes[4] = {};
      const int64_t last = std::min(count, (block + 1) * norm_block);
      for (int64_t i = block * norm_block; i < last; ++i) {
        const double x = load_element(g, i);
        lanes[i % 4] += x * x;
      }
      partial[static_cast<size_t>(block)] = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    }
  });
  double sum = 0.0;
  for (const double p : partial) sum += p;
  return sum;
}

void squared_norm_add(const Exec& exec, double* sum, ConstPtr g, int64_t count) {
  *sum += cpu::squared_norm(exec, g, count);
}

void clip_scale(const Exec&, float* scale, double* norm, const double* squared, const double* losses, float max_norm) {
  *norm = std::sqrt(*squared);
  *scale = 1.0f;
  if (max_norm > 0.0f) *scale = static_cast<float>(std::min(1.0, max_norm / (*norm + 1e-6)));
  if (!std::isfinite(*norm) || !std::isfinite(*losses)) *scale = std::numeric_limits<float>::quiet_NaN();
}

void stochastic_round(const Exec& exec, bf16* y, const float* x, int64_t count, uint32_t seed, uint32_t step,
                      uint32_t parameter, uint32_t micro) {
  parallel_for(exec, count, grain, [&](int64_t begin, int64_t end) {
    RoundingBits random{seed, step, parameter, micro};
    for (int64_t i = begin; i < end; ++i) y[i] = round_stochastically(x[i], random(i));
  });
}

}  // namespace caravan::cpu
