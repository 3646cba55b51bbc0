// What an answer is asked for with, and what comes back: the C++ side of GenerateOptions, GeneratedToken and
// GenerateResult of core/engine/AddonTypes.ts.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/data/tokenizer.h"

namespace caravan {

/// Hugging Face's sampling: penalty, then temperature, top-k, top-p, min-p, in that order; each leaves at least one
/// token. A field at its default does nothing.
struct SamplingOptions {
  float temperature = 0.0f;         // 0: greedy, whatever top-k, top-p and min-p say
  int64_t top_k = 0;                // 0: all
  float top_p = 1.0f;               // in (0, 1]
  float min_p = 0.0f;               // in [0, 1]
  float repetition_penalty = 1.0f;  // above 0; over the ids of prompt and answer
  uint32_t seed = 0;                // the same seed gives the same answer
};

struct GenerateOptions {
  std::vector<int32_t> prompt_ids;  // BOS and template included
  int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;               // the one hit is the last of the answer's ids, and not in its text
  std::vector<std::string> stop_strings;       // the text ends before the first one; need a tokenizer
  std::shared_ptr<const Tokenizer> tokenizer;  // null: ids without text
  bool report_experts = false;
  /// Set from any thread to end the answer before its next token; may be null.
  const std::atomic<bool>* cancelled = nullptr;
};

/// The joined texts of all tokens are the answer's text; none holds a part of a character.
struct GeneratedToken {
  int32_t id = 0;
  std::string text;
  double logprob = 0.0;  // under the model's own distribution, before penalty, temperature and cuts
  /// (layers, top-k): the experts, best first, of the pass that this token was drawn from. Empty unless asked for.
  std::vector<int32_t> experts;
  std::vector<float> expert_weights;
};
using TokenListener = std::function<void(const GeneratedToken&)>;

enum class StopReason : uint8_t { eos, stop_string, length, context, cancelled };
/// As the addon spells it: "eos", "stop_string", ...
const char* stop_reason_name(StopReason reason);

struct GenerateResult {
  std::vector<int32_t> ids;
  std::string text;
  StopReason stop_reason = StopReason::length;
  int64_t prompt_tokens = 0;
  double prompt_ms = 0.0;          // up to the first logits
  double generate_ms = 0.0;        // from then on
  double tokens_per_second = 0.0;  // of the tokens after the first, which the prompt's pass pays for
};

}  // namespace caravan
