// The choice of the next token, as Hugging Face's logits processors make it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/infer/generation.h"

namespace caravan {

/// @throws EngineError bad_option, naming the field.
void check_sampling_options(const SamplingOptions& options);

/// One answer's sampler. Random numbers are a function of (seed, index of the token in the answer) alone.
class Sampler {
 public:
  /// The prompt's ids count for the repetition penalty.
  Sampler(const SamplingOptions& options, int64_t vocab_size, std::span<const int32_t> prompt_ids);

  struct Choice {
    int32_t id = 0;
    double logprob = 0.0;  // log softmax of the logits as they were given
  };
  /// Leaves `logits` (V) as they were. @throws EngineError bad_file where they are not numbers.
  Choice next(float* logits);
  /// Whether it takes the largest logit, whatever was said before: then logits need not be brought to it.
  bool is_greedy() const { return options_.temperature == 0.0f && options_.repetition_penalty == 1.0f; }
  /// The greedy choice, made elsewhere. @throws EngineError bad_file where `logprob` is not a number
  Choice accept(int32_t id, double logprob);

  /// What the last call drew from: id and probability of each token that was left, by rising id. For tests.
  struct Candidate {
    float score = 0.0f;
    int32_t id = 0;
    double probability = 0.0;
  };
  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  void remember(int32_t id);
  void penalise(float* logits);
  void restore(float* logits) const;
  int32_t sample(const float* logits);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  void set_probabilities();
  int32_t draw();

  SamplingOptions options_;
  int64_t vocab_size_;
  uint32_t drawn_ = 0;
  std::vector<uint8_t> is_seen_;  // (V), for the penalty
  std::vector<int32_t> seen_;
  std::vector<float> given_;   // logits of `seen_` before the penalty
  std::vector<float> scores_;  // scratch of top-k
  std::vector<Candidate> candidates_;
};

}  // namespace caravan
