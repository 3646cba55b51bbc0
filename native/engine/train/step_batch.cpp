#include "engine/train/step_batch.h"

#include <algorithm>

#include "engine/data/packing.h"
#include "engine/data/row_order.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

/// Indices into `rows` of each bin.
std::vector<std::vector<int32_t>> lay_into_bins(const TokenShard& shard, const std::vector<int32_t>& rows,
                                                const TrainOptions& options) {
  if (options.packing) {
    std::vector<int64_t> lengths;
    for (const int32_t row : rows) lengths.push_back(shard.row_length(row));
    return pack_best_fit(lengths, options.seq_len);
  }
  std::vector<std::vector<int32_t>> bins;
  for (size_t i = 0; i < rows.size(); ++i) bins.push_back({static_cast<int32_t>(i)});
  return bins;
}

}  // namespace

StepBatch make_step_batch(const TokenShard& shard, std::vector<int32_t> rows, const TrainOptions& options) {
  StepBatch batch;
  batch.rows = std::move(rows);
  const std::vector<std::vector<int32_t>> bins = lay_into_bins(shard, batch.rows, options);
  const size_t per_micro = static_cast<size_t>(options.bins_per_micro_batch());
  for (size_t first = 0; first < bins.size(); first += per_micro) {
    MicroBatch micro;
    for (size_t bin = first; bin < std::min(bins.size(), first + per_micro); ++bin) {
      for (const int32_t index : bins[bin]) {
        const ShardRow row = shard.row(batch.rows[static_cast<size_t>(index)]);
        micro.add(row.ids.data(), row.targets.data(), static_cast<int64_t>(row.ids.size()), index);
      }
    }
    batch.tokens += micro.valid_tokens();
    batch.target_tokens += micro.target_count();
    batch.padding_tokens += micro.padding();
    batch.micro_batches.push_back(std::move(micro));
  }
  return batch;
}

StepPlan::StepPlan(const TokenShard& shard, const TrainOptions& options)
    : row_count_(shard.rows()), batch_size_(options.batch_size), seed_(options.seed) {
  steps_per_epoch_ = (row_count_ + batch_size_ - 1) / batch_size_;
  total_steps_ = steps_per_epoch_ * options.epochs;
  if (options.max_steps > 0) total_steps_ = std::min(total_steps_, options.max_steps);
}

std::vector<int32_t> StepPlan::rows(int64_t step) {
  const int64_t epoch = (step - 1) / steps_per_epoch_;
  if (epoch != ordered_epoch_) {
    order_ = row_order(seed_, static_cast<uint32_t>(epoch), row_count_);
    ordered_epoch_ = epoch;
  }
  const int64_t first = (step - 1) % steps_per_epoch_ * batch_size_;
  const int64_t last = std::min(row_count_, first + batch_size_);
  return {order_.begin() + first, order_.begin() + last};
}

double StepPlan::epochs_after(int64_t step) const {
  const int64_t whole = step / steps_per_epoch_;
  const int64_t rows = step % steps_per_epoch_ * batch_size_;
  return static_cast<double>(whole) + static_cast<double>(rows) / static_cast<double>(row_count_);
}

TokenShard open_shard(const std::string& path, const ModelConfig& config, const TrainOptions& options) {
  TokenShard shard = TokenShard::open(path, config.vocab_size);
  if (shard.rows() == 0) throw EngineError("bad_file", path + ": holds no rows; check the filters of the mix");
  for (int64_t row = 0; row < shard.rows(); ++row) {
    if (shard.row_length(row) <= options.seq_len) continue;
    throw EngineError("bad_option", path + ": row " + std::to_string(row) + " has " +
                                        std::to_string(shard.row_length(row)) + " tokens, but seqLen is " +
                                        std::to_string(options.seq_len) +
                                        "; raise seqLen, or build the mix again with this seqLen");
  }
  return shard;
}

}  // namespace caravan
