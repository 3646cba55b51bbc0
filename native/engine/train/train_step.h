// One optimizer step up to its gradients: every micro-batch forward and backward, and what they found.
#pragma once

#include <functional>
#include <optional>

#include "engine/train/loss_tally.h"
#include "engine/train/training_session.h"

namespace caravan {

struct StepGradients {
  StepBatch batch;
  double loss = 0.0;          // mean cross entropy per target token of the step
  double balance_loss = 0.0;  // alpha times the weighted sum over micro-batches and layers
  double balance_grad_norm = 0.0;
  std::vector<SourceLoss> by_source;
  std::vector<float> row_losses;
  std::vector<float> expert_shares;  // (L, E); empty without experts
};

/// Enqueues what leaves the step's gradients in the session's set. `before_micro_batch` is called before each micro-batch
/// and may block; when it returns false the step is given up and nothing is returned.
std::optional<StepBatch> enqueue_gradients(TrainingSession& session, const TrainOptions& options,
                                           std::vector<int32_t> rows, int64_t step,
                                           const std::function<bool()>& before_micro_batch);

/// Waits for the step whose gradients were enqueued last.
StepGradients collect_gradients(TrainingSession& session, const TrainOptions& options, StepBatch batch);

}  // namespace caravan
