// Trainable set and optimizer state as the tensors of a checkpoint's files.
#pragma once

#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/io/safetensors.h"
#include "engine/train/adamw.h"

namespace caravan {

/// Views into the set's values and the optimizer's state, in the memory of their device.
std::vector<TensorToWrite> trainable_tensors(const TrainableSet& set);
std::vector<TensorToWrite> optimizer_tensors(AdamW& optimizer);

/// Fill every value from `dir`. @throws EngineError bad_file where a tensor is missing, too many, or of another type
/// or shape.
void read_trainable_values(const Exec& exec, const std::string& dir, TrainableSet& set);
void read_optimizer_state(const Exec& exec, const std::string& dir, AdamW& optimizer);

/// Holds one file of a checkpoint to size and hash. @throws EngineError bad_file
void check_checkpoint_file(const std::string& dir, const CheckpointManifest& manifest, const std::string& name);

/// The `step-*` folders, newest first, unread: neither bytes nor problem are filled in.
std::vector<CheckpointInfo> find_checkpoints(const std::string& checkpoint_dir);

}  // namespace caravan
