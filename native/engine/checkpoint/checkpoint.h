// A checkpoint as others read it: a folder `step-000123` with trainable.safetensors (the trained values, by parameter
// name), optimizer.safetensors and manifest.json. It carries the method's numbers, so the crafted model can be built
// from the base model and this folder alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_manifest.h"
#include "engine/model/trainable_set.h"

namespace caravan {

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;
  int64_t bytes = 0;    // as they lie on disk
  std::string problem;  // empty: it verifies
};

/// Every `step-*` folder below `checkpoint_dir`, newest first, each read whole and held to its hashes. A folder that is
/// not there holds none.
std::vector<CheckpointInfo> list_checkpoints(const std::string& checkpoint_dir);

/// "step-000123"
std::string checkpoint_name(int64_t step);

/// @throws EngineError bad_file naming the file.
CheckpointManifest read_checkpoint_manifest(const std::string& dir);

/// What is wrong with a checkpoint, every byte read; empty when it verifies.
std::string checkpoint_problem(const std::string& dir);

/// The trained values of a checkpoint, in a set of the method that trained them; its gradients are not allocated.
/// `lora` and `pesc` sets go with a base of the same `config`; `full` and `upcycle` sets replace it.
/// @throws EngineError bad_file where the checkpoint does not verify (the optimizer's state is not looked at) or does
/// not fit `config`.
std::shared_ptr<TrainableSet> load_checkpoint_weights(const Exec& exec, const std::string& dir,
                                                      const ModelConfig& config);

}  // namespace caravan
