// An answer as it grows, whatever computes its logits: draws each token, gives out its text, and knows when it is over.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "engine/infer/answer_text.h"
#include "engine/infer/generation.h"
#include "engine/infer/sampler.h"

namespace caravan {

/// @throws EngineError bad_option naming the id
void check_ids(std::span<const int32_t> ids, const std::string& name, int64_t vocab_size);

/// @throws EngineError bad_option naming the field, and where the prompt leaves no room for a token
void check_generate_options(const GenerateOptions& options, int64_t vocab_size, int64_t context_length);

class Answer {
 public:
  /// Checks the options.
  Answer(const GenerateOptions& options, int64_t vocab_size, int64_t context_length);

  /// The token that `logits` (V), which stay as they were, give; without experts.
  GeneratedToken next(float* logits);
  /// Whether the largest logit is taken, whatever was said before: then the choice may be made elsewhere.
  bool is_greedy() const { return sampler_.is_greedy(); }
  GeneratedToken accept(int32_t greedy_id, double logprob);
  /// Set when no further token may follow.
  std::optional<StopReason> reason() const { return reason_; }
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  GeneratedToken add(const Sampler::Choice& choice);

  std::vector<int32_t> stop_ids_;
  int64_t most_;  // ids
  int64_t room_;  // ids that the context has room for
  Sampler sampler_;
  AnswerText text_;
  std::vector<int32_t> ids_;
  std::optional<StopReason> reason_;
};

}  // namespace caravan
