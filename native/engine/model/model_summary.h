// What a stored model holds, from its configuration and the tensor headers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model_config.h"

namespace caravan {

struct ParameterCounts {
  int64_t embedding = 0;
  int64_t attention = 0;  // projections and their biases
  int64_t mlp = 0;
  int64_t norms = 0;    // those of queries and keys included
  int64_t head = 0;     // 0 when tied
  int64_t experts = 0;  // those that a sparse model brings along, and its routers
  int64_t total = 0;
};

struct ModelSummary {
  ModelConfig config;
  ParameterCounts parameters;
  std::vector<std::string> stored_types;  // as the format names them, sorted
  uint64_t file_bytes = 0;
};

ParameterCounts count_parameters(const ModelConfig& config);

/// @throws EngineError bad_file (also where a tensor that the configuration needs is missing), unsupported_architecture
ModelSummary summarize_model(const std::string& path);

/// "llama3 x8", "yarn x4"; empty for a model without scaling.
std::string describe_rope_scaling(const RopeScaling& scaling);

}  // namespace caravan
