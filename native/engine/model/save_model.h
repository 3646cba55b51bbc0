// A trained dense model as a Hugging Face folder: config.json and model.safetensors.
#pragma once

#include <string>

#include "engine/model/model_config.h"
#include "engine/model/trainable_set.h"

namespace caravan {

/// Writes the values of a `full` set in `dtype`. @throws EngineError bad_option for a set of another method; disk_full.
void save_dense_model(const std::string& dir, const ModelConfig& config, const TrainableSet& set, DType dtype);

}  // namespace caravan
