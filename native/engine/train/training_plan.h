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

/// What a run holds while it trains.
struct MemoryPlan {
  // base, trainable, gradients, optimizer, activations, workspace, logits; on the CPU also snapshot, the copy from which a
  // checkpoint is written while training goes on; on a GPU also driver, what CUDA itself takes, and loading, what the
  // comparison with the unquantised weights takes beyond all that.
  std::vector<MemoryItem> items;
  int64_t total = 0;
  int64_t host = 0;  // on a GPU: of the machine's own memory beside it
};

struct TrainingPlan {
  int64_t base_parameters = 0;
  int64_t lora_parameters = 0;
  int64_t adapter_parameters = 0;
  int64_t router_parameters = 0;
  int64_t trainable_parameters = 0;
  int64_t total_parameters = 0;
  MemoryPlan memory;
  int64_t checkpoint_bytes = 0;
  int64_t rows = 0;
  int64_t steps = 0;
  int64_t warmup_steps = 0;
  std::optional<ProbeResult> probe;
};

/// From the model's configuration alone.
MemoryPlan plan_memory(const ModelConfig& config, const TrainOptions& options);

/// Reads config.json, tensor headers and the shard's index. @throws EngineError bad_file, bad_option.
TrainingPlan plan_training(const TrainOptions& options);

/// Loads the model and times one micro-batch's step with the longest conversations (after one to warm up).
ProbeResult probe_training(const TrainOptions& options);

}  // namespace caravan
