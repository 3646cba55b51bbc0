#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/transfer.h"

namespace caravan {

namespace {

/// Wave lengths below `high` keep their frequency, above `low` are stretched by the factor, between them blend.
double llama3_frequency(double frequency, const RopeScaling& rope) {
  const double original = static_cast<double>(rope.original_max_positions);
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double s = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - s) * frequency / rope.factor + s * frequency;
}

/// Dimension whose wave turns `rotations` times over the original context.
double yarn_dimension(double rotations, double head_dim, double base, double original) {
  return head_dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(base));
}

void scale_yarn(std::vector<double>& frequencies, const ModelConfig& config) {
  const RopeScaling& rope = config.rope;
  const double d = static_cast<double>(config.head_dim);
  const double original = static_cast<double>(rope.original_max_positions);
  double low = yarn_dimension(rope.beta_fast, d, config.rope_theta, original);
  double high = yarn_dimension(rope.beta_slow, d, config.rope_theta, original);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1.0);
  if (low == high) high += 0.001;  // as transformers: no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / rope.factor * ramp + frequencies[i] * (1.0 - ramp);
  }
}

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

double yarn_attention_factor(const RopeScaling& rope) {
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  if (rope.mscale > 0.0 && rope.mscale_all_dim > 0.0) {
    return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  }
  return yarn_mscale(rope.factor, 1.0);
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& config, int64_t length, double* attention_factor) {
  const RopeScaling& rope = config.rope;
  const double d = static_cast<double>(config.head_dim);
  double base = config.rope_theta;
  if (rope.kind == RopeKind::dynamic) {
    const double longest = static_cast<double>(std::max(length, config.max_positions));
    const double original = static_cast<double>(config.max_positions);
    base *= std::pow(rope.factor * longest / original - (rope.factor - 1.0), d / (d - 2.0));
  }
  std::vector<double> frequencies(static_cast<size_t>(config.head_dim / 2));
  // In fp32, as transformers computes them: a frequency's last bit moves the angle of position 8000 by 5e-4.
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  if (rope.kind == RopeKind::linear) {
    for (double& frequency : frequencies) frequency /= rope.factor;
  }
  if (rope.kind == RopeKind::llama3) {
    for (double& frequency : frequencies) frequency = llama3_frequency(frequency, rope);
  }
  if (rope.kind == RopeKind::divisors) {
    for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= double{rope.divisors[i]};
  }
  if (rope.kind == RopeKind::yarn) scale_yarn(frequencies, config);
  *attention_factor = rope.kind == RopeKind::yarn ? yarn_attention_factor(rope) : 1.0;
  return frequencies;
}

void fill_rope_rows(const ModelConfig& config, int64_t length, int64_t first, int64_t count, float* cos, float* sin) {
  double attention_factor = 1.0;
  const std::vector<double> frequencies = rope_frequencies(config, length, &attention_factor);
  for (int64_t row = 0; row < count; ++row) {
    for (const double frequency : frequencies) {
      // transformers multiplies position and frequency in fp32; the angle's rounding is part of the model.
      const float angle = static_cast<float>(first + row) * static_cast<float>(frequency);
      *cos++ = static_cast<float>(std::cos(static_cast<double>(angle)) * attention_factor);
      *sin++ = static_cast<float>(std::sin(static_cast<double>(angle)) * attention_factor);
    }
  }
}

RopeTable make_rope_table(const Exec& exec, const ModelConfig& config, int64_t positions) {
  RopeTable table;
  table.positions = positions;
  table.half = config.head_dim / 2;
  const int64_t count = positions * table.half;
  table.storage = DeviceBuffer::of(exec.device, DType::f32, 2 * count);
  std::vector<float> staged;
  float* filled = table.storage.as<float>();
  if (exec.device != Device::cpu) {
    staged.resize(static_cast<size_t>(2 * count));
    filled = staged.data();
  }
  fill_rope_rows(config, positions, 0, positions, filled, filled + count);
  if (!staged.empty()) upload(exec, table.storage.data(), staged.data(), table.storage.bytes());
  table.cos = table.storage.as<const float>();
  table.sin = table.cos + count;
  return table;
}

}  // namespace caravan
