#include "engine/train/train_step.h"

#include <numeric>

namespace caravan {

namespace {

/// Share of each expert in its layer's assignments.
std::vector<float> shares_of(const std::vector<int64_t>& assignments, int64_t num_experts) {
  std::vector<float> shares;
  const size_t e = static_cast<size_t>(num_experts);
  for (size_t first = 0; first < assignments.size(); first += e) {
    const auto begin = assignments.begin() + static_cast<ptrdiff_t>(first);
    const int64_t total = std::accumulate(begin, begin + static_cast<ptrdiff_t>(e), int64_t{0});
    for (size_t i = first; i < first + e; ++i) {
      shares.push_back(static_cast<float>(static_cast<double>(assignments[i]) / static_cast<double>(total)));
    }
  }
  return shares;
}

/// A micro-batch's share of its step's tokens.
double weight_of(const MicroBatch& micro, const StepBatch& batch) {
  return static_cast<double>(micro.valid_tokens()) / static_cast<double>(batch.tokens);
}

}  // namespace

std::optional<StepBatch> enqueue_gradients(TrainingSession& session, const TrainOptions& options,
                                           std::vector<int32_t> rows, int64_t step,
                                           const std::function<bool()>& before_micro_batch) {
  StepBatch batch = make_step_batch(*session.train, std::move(rows), options);
  session.set->zero_gradients(session.exec);
  session.decoder->begin_step();
  StepPlace place;
  place.seed = options.seed;
  place.step = static_cast<uint32_t>(step);
  place.loss_scale = 1.0f / static_cast<float>(batch.target_tokens);
  for (const MicroBatch& micro : batch.micro_batches) {
    if (!before_micro_batch()) return std::nullopt;
    place.balance_weight = static_cast<float>(weight_of(micro, batch));
    session.decoder->accumulate(micro.tokens(), micro.targets(), place);
    place.micro += 1;
  }
  return batch;
}

StepGradients collect_gradients(TrainingSession& session, const TrainOptions& options, StepBatch collected) {
  StepGradients result;
  result.batch = std::move(collected);
  const StepBatch& batch = result.batch;
  std::vector<int32_t> source_of_row;
  for (const int32_t row : batch.rows) source_of_row.push_back(session.train->row(row).source);
  LossTally tally(std::move(source_of_row), session.train->sources());
  std::vector<int64_t> assignments;
  const std::vector<MicroBatchResult> all = session.decoder->collect();
  for (size_t i = 0; i < all.size(); ++i) {
    const MicroBatch& micro = batch.micro_batches[i];
    const MicroBatchResult& passed = all[i];
    const double weight = weight_of(micro, batch);
    tally.add(micro, passed.losses);
    for (const float loss : passed.balance_loss) result.balance_loss += weight * loss;
    assignments.resize(passed.tokens_per_expert.size());
    for (size_t j = 0; j < assignments.size(); ++j) assignments[j] += passed.tokens_per_expert[j];
  }
  result.loss = tally.mean();
  result.by_source = tally.by_source();
  result.row_losses = tally.by_row();
  result.balance_loss *= options.method.balance_coefficient;
  if (options.method.has_experts()) {
    result.balance_grad_norm = session.decoder->balance_gradient_norm();
    result.expert_shares = shares_of(assignments, options.method.num_experts);
  }
  return result;
}

}  // namespace caravan
