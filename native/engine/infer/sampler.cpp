#include "engine/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "engine/infer/log_probability.h"
#include "engine/platform/error.h"
#include "kernels/philox.h"

namespace caravan {

namespace {

using Candidate = Sampler::Candidate;

void require(bool holds, const char* field, double value, const char* range) {
  if (holds) return;
  throw EngineError("bad_option", std::string(field) + " is " + std::to_string(value) + "; it must be " + range);
}

void require_finite(double of_logits) {
  if (std::isfinite(of_logits)) return;
  throw EngineError("bad_file",
                    "the model's logits are not finite numbers: its weights, or those of the checkpoint, are damaged");
}

/// Falling scores; of equal ones the higher id first. Hugging Face cuts from the other end of a stable rising sort.
bool is_better(const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : a.id > b.id; }

bool has_lower_id(const Candidate& a, const Candidate& b) { return a.id < b.id; }

}  // namespace

void check_sampling_options(const SamplingOptions& options) {
  require(options.temperature >= 0.0f && std::isfinite(options.temperature), "temperature", options.temperature,
          "0 (greedy) or above");
  require(options.top_k >= 0, "topK", static_cast<double>(options.top_k), "0 (all tokens) or above");
  require(options.top_p > 0.0f && options.top_p <= 1.0f, "topP", options.top_p, "above 0 and at most 1");
  require(options.min_p >= 0.0f && options.min_p <= 1.0f, "minP", options.min_p, "between 0 and 1");
  require(options.repetition_penalty > 0.0f && std::isfinite(options.repetition_penalty), "repetitionPenalty",
          options.repetition_penalty, "above 0");
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size, std::span<const int32_t> prompt_ids)
    : options_(options), vocab_size_(vocab_size) {
  check_sampling_options(options_);
  if (options_.repetition_penalty != 1.0f) {
    is_seen_.resize(static_cast<size_t>(vocab_size_));
    for (const int32_t id : prompt_ids) remember(id);
  }
  if (options_.temperature > 0.0f) candidates_.reserve(static_cast<size_t>(vocab_size_));
}

void Sampler::remember(int32_t id) {
  if (is_seen_.empty() || is_seen_[static_cast<size_t>(id)]) return;
  is_seen_[static_cast<size_t>(id)] = 1;
  seen_.push_back(id);
}

void Sampler::penalise(float* logits) {
  given_.clear();
  for (const int32_t id : seen_) {
    float& logit = logits[id];
    given_.push_back(logit);
    logit = logit < 0.0f ? logit * options_.repetition_penalty : logit / options_.repetition_penalty;
  }
}

void Sampler::restore(float* logits) const {
  for (size_t i = 0; i < seen_.size(); ++i) logits[seen_[i]] = given_[i];
}

Sampler::Choice Sampler::accept(int32_t id, double logprob) {
  require_finite(logprob);
  ++drawn_;
  return {id, logprob};
}

Sampler::Choice Sampler::next(float* logits) {
  const double total = log_sum_exp(logits, vocab_size_);
  require_finite(total);
  penalise(logits);
  Choice choice;
  choice.id = options_.temperature == 0.0f ? static_cast<int32_t>(arg_max(logits, vocab_size_)) : sample(logits);
  restore(logits);
  choice.logprob = static_cast<double>(logits[choice.id]) - total;
  remember(choice.id);
  ++drawn_;
  return choice;
}

int32_t Sampler::sample(const float* logits) {
  candidates_.resize(static_cast<size_t>(vocab_size_));
  for (int64_t i = 0; i < vocab_size_; ++i) {
    candidates_[static_cast<size_t>(i)] = {logits[i] / options_.temperature, static_cast<int32_t>(i), 0.0};
  }
  keep_top_k();
  keep_top_p();
  keep_min_p();
  set_probabilities();
  return draw();
}

/// Everything below the k-th largest goes; what equals it stays.
void Sampler::keep_top_k() {
  if (options_.top_k == 0 || options_.top_k >= vocab_size_) return;
  scores_.clear();
  for (const Candidate& candidate : candidates_) scores_.push_back(candidate.score);
  const auto kth = scores_.begin() + (options_.top_k - 1);
  std::nth_element(scores_.begin(), kth, scores_.end(), std::greater<>());
  const float threshold = *kth;
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.score < threshold; });
}

/// The best tokens stay, the one included that brings their sum to top-p.
void Sampler::keep_top_p() {
  if (options_.top_p >= 1.0f) return;
  set_probabilities();
  const auto is_worse = [](const Candidate& a, const Candidate& b) { return is_better(b, a); };
  std::make_heap(candidates_.begin(), candidates_.end(), is_worse);
  // What leaves the heap gathers at the end of the array, the best last.
  const double enough = static_cast<double>(options_.top_p);
  auto kept = candidates_.end();
  for (double sum = 0.0; sum < enough && kept != candidates_.begin();) {
    std::pop_heap(candidates_.begin(), kept, is_worse);
    --kept;
    sum += kept->probability;
  }
  candidates_.erase(candidates_.begin(), kept);
  std::sort(candidates_.begin(), candidates_.end(), has_lower_id);
}

/// What is less than min-p times as likely as the best goes.
void Sampler::keep_min_p() {
  if (options_.min_p <= 0.0f) return;
  set_probabilities();
  double largest = 0.0;
  for (const Candidate& candidate : candidates_) largest = std::max(largest, candidate.probability);
  const double least = static_cast<double>(options_.min_p) * largest;
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.probability < least; });
}

/// Softmax over what is left.
void Sampler::set_probabilities() {
  float largest = candidates_.front().score;
  for (const Candidate& candidate : candidates_) largest = std::max(largest, candidate.score);
  double sum = 0.0;
  for (Candidate& candidate : candidates_) {
    candidate.probability = exp_of_negative(static_cast<double>(candidate.score) - static_cast<double>(largest));
    sum += candidate.probability;
  }
  for (Candidate& candidate : candidates_) candidate.probability /= sum;
}

/// Inverts the cumulative distribution over rising ids at a number of 53 random bits.
int32_t Sampler::draw() {
  const Philox4 random = philox(options_.seed, 0, drawn_, 0, static_cast<uint32_t>(PhiloxUse::sampling), 0);
  const uint64_t bits = (uint64_t{random.word[0]} << 21) ^ (random.word[1] >> 11);
  const double at = static_cast<double>(bits) * 0x1p-53;
  double sum = 0.0;
  int32_t last = candidates_.front().id;
  for (const Candidate& candidate : candidates_) {
    if (candidate.probability == 0.0) continue;
    last = candidate.id;
    sum += candidate.probability;
    if (at < sum) break;
  }
  return last;  // the last of all where rounding left the sum just below 1
}

}  // namespace caravan
