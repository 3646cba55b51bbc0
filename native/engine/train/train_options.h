// A training run as the engine sees it: one struct, parsed once at the boundary (core/engine/AddonTypes.ts has the same
// fields in camelCase).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "engine/model/base_model.h"
#include "engine/model/method.h"

namespace caravan {

struct TrainOptions {
  std::string model_dir;
  std::string train_shard;
  std::string validation_shard;  // empty: no evaluation
  std::string checkpoint_dir;    // receives step-000123 folders
  std::string resume_from;       // a checkpoint folder, or empty

  MethodOptions method;
  BaseDType base_dtype = BaseDType::bf16;
  bool double_quant = true;
  DType compute_dtype = DType::f32;
  DType train_dtype = DType::f32;
  /// Pre-training: start from random weights of config.json instead of stored ones (method `full` alone).
  bool random_init = false;

  int64_t batch_size = 128;      // conversations per optimizer step
  int64_t micro_batch_size = 1;  // bins of seq_len per micro-batch
  int64_t seq_len = 2048;
  bool packing = true;
  int64_t epochs = 1;
  int64_t max_steps = 0;  // 0: as many as `epochs` have

  float lr = 2e-4f;
  std::string schedule = "constant";  // constant, linear, cosine
  float warmup_ratio = 0.03f;
  std::string optimizer = "adamw";  // adamw, adamw8bit, paged_adamw, paged_adamw8bit
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;
  float max_grad_norm = 0.3f;  // 0: no clipping
  bool recompute = false;
  int64_t recompute_layers = 0;  // with recompute: of the first so many layers; 0: of all

  uint32_t seed = 42;
  int64_t eval_steps = 0;  // 0: only before the first and after the last step
  int64_t save_steps = 0;  // 0: only after the last step
  int64_t keep_checkpoints = 2;
  int threads = 0;  // 0: one per core
  Device device = Device::cpu;
  int device_index = 0;                         // among CUDA's devices
  std::map<std::string, std::string> identity;  // goes into each checkpoint's manifest

  /// A step has no more bins than conversations.
  int64_t bins_per_micro_batch() const { return std::min(micro_batch_size, batch_size); }
};

/// @throws EngineError bad_option, naming the field, its value and what is allowed.
void check_train_options(const TrainOptions& options);

}  // namespace caravan
