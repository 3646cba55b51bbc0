#include "engine/train/loss_tally.h"

#include <numeric>

namespace caravan {

LossTally::LossTally(std::vector<int32_t> source_of_row, const std::vector<std::string>& sources)
    : source_of_row_(std::move(source_of_row)),
      sources_(sources),
      sums_(source_of_row_.size(), 0.0),
      counts_(source_of_row_.size(), 0) {}

void LossTally::add(const MicroBatch& batch, const std::vector<float>& losses) {
  const std::vector<int32_t>& rows = batch.target_conversations();
  for (size_t i = 0; i < losses.size(); ++i) {
    sums_[static_cast<size_t>(rows[i])] += losses[i];
    counts_[static_cast<size_t>(rows[i])] += 1;
  }
}

int64_t LossTally::target_tokens() const { return std::accumulate(counts_.begin(), counts_.end(), int64_t{0}); }

double LossTally::mean() const {
  return std::accumulate(sums_.begin(), sums_.end(), 0.0) / static_cast<double>(target_tokens());
}

std::vector<SourceLoss> LossTally::by_source() const {
  std::vector<SourceLoss> all(sources_.size());
  for (size_t row = 0; row < sums_.size(); ++row) {
    SourceLoss& source = all[static_cast<size_t>(source_of_row_[row])];
    source.loss += sums_[row];
    source.target_tokens += counts_[row];
    source.rows += 1;
  }
  std::vector<SourceLoss> seen;
  for (size_t s = 0; s < all.size(); ++s) {
    if (all[s].target_tokens == 0) continue;
    all[s].source = sources_[s];
    all[s].loss /= static_cast<double>(all[s].target_tokens);
    seen.push_back(std::move(all[s]));
  }
  return seen;
}

std::vector<float> LossTally::by_row() const {
  std::vector<float> means(sums_.size(), 0.0f);
  for (size_t row = 0; row < sums_.size(); ++row) {
    if (counts_[row] > 0) means[row] = static_cast<float>(sums_[row] / static_cast<double>(counts_[row]));
  }
  return means;
}

}  // namespace caravan
