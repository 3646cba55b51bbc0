// The loop of an answer: draw a token, tell it, read it.
#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/infer/answer_text.h"
#include "engine/infer/cached_decoder.h"
#include "engine/infer/held_memory.h"
#include "engine/infer/inference_model.h"
#include "engine/infer/sampler.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

bool is_set(const std::atomic<bool>* flag) { return flag != nullptr && flag->load(); }

}  // namespace

void InferenceModel::check_generate_options(const GenerateOptions& options) const {
  if (options.prompt_ids.empty()) {
    throw EngineError("bad_option", "promptIds is empty; it needs at least one token, such as BOS");
  }
  if (static_cast<int64_t>(options.prompt_ids.size()) >= context_length()) {
    throw EngineError("bad_option", "promptIds has " + std::to_string(options.prompt_ids.size()) +
                                        " tokens and the model's context is " + std::to_string(context_length()) +
                                        ": no room is left for an answer; shorten the conversation");
  }
  check_ids(options.prompt_ids, "promptIds");
  if (options.max_tokens < 1) throw EngineError("bad_option", "maxTokens must be at least 1");
}

GenerateResult InferenceModel::generate(const GenerateOptions& options, const TokenListener& on_token) {
  check_generate_options(options);
  const int64_t prompt_tokens = static_cast<int64_t>(options.prompt_ids.size());
  Sampler sampler(options.sampling, config().vocab_size, options.prompt_ids);
  AnswerText text(options.tokenizer, options.stop_strings);
  HeldMemory held(held_);
  const ExecPool::Lease lease(execs_);
  CachedDecoder decoder(lease.exec(), model_, compute_dtype_, context_length());

  GenerateResult result;
  result.prompt_tokens = prompt_tokens;
  result.ids.reserve(static_cast<size_t>(std::min(options.max_tokens, context_length() - prompt_tokens)));
  const Clock::time_point began = Clock::now();
  std::optional<StopReason> reason;
  if (!decoder.read(options.prompt_ids, options.cancelled)) reason = StopReason::cancelled;
  const Clock::time_point answering = Clock::now();
  GeneratedToken token;
  while (!reason) {
    held.set(decoder.memory_bytes());
    const Sampler::Choice choice = sampler.next(decoder.logits());
    token.id = choice.id;
    token.logprob = choice.logprob;
    if (options.report_experts) {
      token.experts = decoder.experts();
      token.expert_weights = decoder.expert_weights();
    }
    result.ids.push_back(choice.id);
    const int64_t answered = static_cast<int64_t>(result.ids.size());
    const bool is_stop =
        std::find(options.stop_ids.begin(), options.stop_ids.end(), choice.id) != options.stop_ids.end();
    token.text = is_stop ? std::string() : text.push(choice.id);
    if (is_stop) {
      reason = StopReason::eos;
    } else if (text.stopped()) {
      reason = StopReason::stop_string;
    } else if (answered == options.max_tokens) {
      reason = StopReason::length;
    } else if (prompt_tokens + answered == context_length()) {
      reason = StopReason::context;
    }
    if (reason) token.text += text.finish();
    result.text += token.text;
    if (on_token) on_token(token);
    if (reason) break;

    if (is_set(options.cancelled)) {
      reason = StopReason::cancelled;
    } else {
      decoder.read({&result.ids.back(), 1});
    }
  }
  result.stop_reason = *reason;
  result.prompt_ms = milliseconds(began, answering);
  result.generate_ms = milliseconds(answering, Clock::now());
  if (result.ids.size() > 1 && result.generate_ms > 0.0) {
    result.tokens_per_second = static_cast<double>(result.ids.size() - 1) / result.generate_ms * 1e3;
  }
  return result;
}

}  // namespace caravan
