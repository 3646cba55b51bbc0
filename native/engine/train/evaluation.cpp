#include "engine/train/evaluation.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/train/loss_tally.h"
#include "engine/train/step_batch.h"

namespace caravan {

EvaluationMetrics evaluate_shard(Decoder& decoder, const TokenShard& shard, const TrainOptions& options, int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<int32_t> rows(static_cast<size_t>(shard.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<int32_t> sources;
  for (const int32_t row : rows) sources.push_back(shard.row(row).source);

  LossTally tally(sources, shard.sources());
  const StepBatch all = make_step_batch(shard, std::move(rows), options);
  for (const MicroBatch& batch : all.micro_batches) {
    tally.add(batch, decoder.evaluate(batch.tokens(), batch.targets()).losses);
  }
  EvaluationMetrics metrics;
  metrics.step = step;
  metrics.loss = tally.mean();
  metrics.by_source = tally.by_source();
  metrics.evaluation_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return metrics;
}

}  // namespace caravan
