// What a run holds in memory while it trains: weights, trainable set, decoder, optimizer, shards.
#pragma once

#include <functional>
#include <memory>

#include "engine/data/token_shard.h"
#include "engine/model/compute_device.h"
#include "engine/model/decoder.h"
#include "engine/train/adamw.h"
#include "engine/train/gradient_clip.h"
#include "engine/train/step_batch.h"
#include "engine/train/train_options.h"

namespace caravan {

struct TrainingSession {
  ComputeDevice device;
  Exec exec;
  ModelConfig config;
  std::unique_ptr<TokenShard> train;
  std::unique_ptr<TokenShard> validation;  // null without one
  std::shared_ptr<TrainableSet> set;
  std::shared_ptr<const Model> model;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<GradientClip> clip;
  double step_zero_difference = 0.0;      // of a fresh run
  double quantization_difference = -1.0;  // of a fresh run over a quantised base; < 0: not measured
};

/// Loads and crafts; `loading` (done, total bytes of the base) may be empty. A resumed run skips the comparisons of step 0. @throws EngineError bad_file, bad_option,
/// out_of_memory.
TrainingSession open_training_session(const TrainOptions& options,
                                      const std::function<void(int64_t, int64_t)>& loading = {});

/// How these options keep the base.
BaseOptions base_options(const TrainOptions& options);

/// Whether a run over a quantised base also loads the unquantised weights at its start, to say what NF4 costs.
bool compares_unquantised(const ModelConfig& config, const TrainOptions& options);

/// Whether products read bf16 copies of the values: TrainableSet::allocate_copies.
bool keeps_copies(const TrainOptions& options);
/// Sizes of the decoder's memory for these options.
DecoderOptions decoder_options(const TrainOptions& options);

}  // namespace caravan
