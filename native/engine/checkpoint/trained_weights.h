// What was trained on top of a base model, whatever folder holds it: a checkpoint, PEFT's LoRA, or an adapter that this
// program exported.
#pragma once

#include <memory>
#include <string>

#include "engine/model/trainable_set.h"

namespace caravan {

/// @throws EngineError bad_file where the folder is none of these, is damaged, or does not fit `config`
std::shared_ptr<TrainableSet> load_trained_weights(const Exec& exec, const std::string& dir, const ModelConfig& config);

}  // namespace caravan
