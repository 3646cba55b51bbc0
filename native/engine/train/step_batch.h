// The conversations of one optimizer step, laid into bins and micro-batches. Which conversations a step sees depends on
// (seed, epoch) alone; packing only decides how they lie.
#pragma once

#include <vector>

#include "engine/data/token_shard.h"
#include "engine/train/micro_batch.h"
#include "engine/train/train_options.h"

namespace caravan {

struct StepBatch {
  std::vector<int32_t> rows;  // of the shard, in the step's order: a conversation's index is its place here
  std::vector<MicroBatch> micro_batches;
  int64_t tokens = 0;
  int64_t target_tokens = 0;
  int64_t padding_tokens = 0;
};

/// Lays `rows` into bins of seqLen (best fit, or one conversation a bin without packing), microBatchSize bins to a
/// micro-batch.
StepBatch make_step_batch(const TokenShard& shard, std::vector<int32_t> rows, const TrainOptions& options);

/// The steps of a run over one shard: epochs of ceil(rows / batchSize) steps, the last of each with what is left.
class StepPlan {
 public:
  StepPlan(const TokenShard& shard, const TrainOptions& options);

  int64_t total_steps() const { return total_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  /// Rows of `step` (from 1).
  std::vector<int32_t> rows(int64_t step);
  /// Epochs seen once `step` is done.
  double epochs_after(int64_t step) const;

 private:
  int64_t row_count_;
  int64_t batch_size_;
  uint32_t seed_;
  int64_t steps_per_epoch_ = 0;
  int64_t total_steps_ = 0;
  int64_t ordered_epoch_ = -1;
  std::vector<int32_t> order_;
};

/// Opens a shard for a run. @throws EngineError bad_option where a row is longer than seqLen, naming it; bad_file for a
/// shard without rows, or with ids outside the model's vocabulary.
TokenShard open_shard(const std::string& path, const ModelConfig& config, const TrainOptions& options);

}  // namespace caravan
