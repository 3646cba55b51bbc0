// Memory by item, parameters by group and steps of a run, from headers alone; and a probe that times one step.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/train/train_options.h"

namespace caravan {

struct MemoryItem {
  std::string item;
  int64_t bytes = 0;
};

struct ProbeResult {
  double step_ms = 0.0;
  double tokens_per_second = 0.0;
};

struct TrainingPlan {
  int64_t base_parameters = 0;
  int64_t lora_parameters = 0;
  int64_t adapter_parameters = 0;
  int64_t router_parameters = 0;
  int64_t trainable_parameters = 0;
  int64_t total_parameters = 0;
  std::vector<MemoryItem> memory;  // base, trainable, gradients, optimizer, activations, workspace, logits, and
                                   // snapshot: the copy from which a checkpoint is written while training goes on
  int64_t total_memory_bytes = 0;
  int64_t checkpoint_bytes = 0;
  int64_t rows = 0;
  int64_t steps = 0;
  int64_t warmup_steps = 0;
  std::optional<ProbeResult> probe;
};

/// Reads config.json, tensor headers and the shard's index. @throws EngineError bad_file, bad_option.
TrainingPlan plan_training(const TrainOptions& options);

/// Loads the model and times one micro-batch's step with the longest conversations (after one to warm up).
ProbeResult probe_training(const TrainOptions& options);

}  // namespace caravan
