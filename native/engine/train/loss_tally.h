// Sums of losses by conversation and by source, in fp64 and in a fixed order.
#pragma once

#include <string>
#include <vector>

#include "engine/train/metrics.h"
#include "engine/train/micro_batch.h"

namespace caravan {

class LossTally {
 public:
  /// `source_of_row`: for each conversation, an index into `sources`.
  LossTally(std::vector<int32_t> source_of_row, const std::vector<std::string>& sources);

  /// `losses`: one per target of `batch`.
  void add(const MicroBatch& batch, const std::vector<float>& losses);

  /// Mean per target token; not finite as soon as one loss is not.
  double mean() const;
  int64_t target_tokens() const;
  /// Sources without a target token are left out.
  std::vector<SourceLoss> by_source() const;
  /// Mean of each conversation; 0 for one without a target.
  std::vector<float> by_row() const;

 private:
  std::vector<int32_t> source_of_row_;
  const std::vector<std::string>& sources_;
  std::vector<double> sums_;
  std::vector<int64_t> counts_;
};

}  // namespace caravan
