// Cosines and sines of the rotary embedding for every position, scaling applied (facts: transformers'
// modeling_rope_utils; yarn: arXiv 2309.00071).
#pragma once

#include <vector>

#include "engine/model/device_buffer.h"
#include "engine/model/model_config.h"

namespace caravan {

struct RopeTable {
  DeviceBuffer storage;
  int64_t positions = 0;
  int64_t half = 0;            // head_dim / 2
  const float* cos = nullptr;  // (positions, half), attention factor included
  const float* sin = nullptr;
};

/// Frequencies (head_dim / 2) for sequences of up to `positions`; only the dynamic kind depends on it.
std::vector<double> rope_frequencies(const ModelConfig& config, int64_t positions, double* attention_factor);

RopeTable make_rope_table(Device device, const ModelConfig& config, int64_t positions);

}  // namespace caravan
