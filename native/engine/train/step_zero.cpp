#include "engine/train/step_zero.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/model/decoder.h"

namespace caravan {

namespace {

constexpr int64_t sampled_rows = 32;

}  // namespace

std::vector<float> sample_logits(const Exec& exec, std::shared_ptr<const Model> model, DType activation,
                                 const MicroBatch& batch) {
  const int64_t vocab = model->config().vocab_size;
  DecoderOptions options;
  options.activation = activation;
  options.recompute = true;  // one layer's activations at a time
  options.max_tokens = batch.size();
  options.max_targets = sampled_rows;
  Decoder decoder(exec, std::move(model), options);

  const int64_t count = std::min(sampled_rows, batch.size());
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>(i * batch.size() / count));
  std::vector<float> logits(static_cast<size_t>(count * vocab));
  decoder.logits(batch.tokens(), rows.data(), count, logits.data());
  return logits;
}

double largest_logit_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

}  // namespace caravan
