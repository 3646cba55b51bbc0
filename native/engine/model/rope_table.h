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

/// Frequencies (head_dim / 2) of a sequence of `length` tokens; only the dynamic kind depends on it, and only beyond
/// max_positions.
std::vector<double> rope_frequencies(const ModelConfig& config, int64_t length, double* attention_factor);

/// Cosines and sines of positions first, first + 1, ... in a sequence of `length` tokens -> cos, sin (count, half).
void fill_rope_rows(const ModelConfig& config, int64_t length, int64_t first, int64_t count, float* cos, float* sin);

/// The rows of positions 0, 1, ... in sequences of up to `positions` tokens.
RopeTable make_rope_table(const Exec& exec, const ModelConfig& config, int64_t positions);

}  // namespace caravan
