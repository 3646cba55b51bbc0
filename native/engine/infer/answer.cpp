#include "engine/infer/answer.h"

#include <algorithm>

#include "engine/platform/error.h"

namespace caravan {

namespace {

const GenerateOptions& checked(const GenerateOptions& options, int64_t vocab_size, int64_t context_length) {
  check_generate_options(options, vocab_size, context_length);
  return options;
}

}  // namespace

void check_ids(std::span<const int32_t> ids, const std::string& name, int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    throw EngineError("bad_option", name + "[" + std::to_string(i) + "] is " + std::to_string(ids[i]) +
                                        ", but the model knows the ids from 0 to " + std::to_string(vocab_size - 1) +
                                        ": is it of another tokenizer?");
  }
}

void check_generate_options(const GenerateOptions& options, int64_t vocab_size, int64_t context_length) {
  if (options.prompt_ids.empty()) {
    throw EngineError("bad_option", "promptIds is empty; it needs at least one token, such as BOS");
  }
  if (static_cast<int64_t>(options.prompt_ids.size()) >= context_length) {
    throw EngineError("bad_option", "promptIds has " + std::to_string(options.prompt_ids.size()) +
                                        " tokens and the model's context is " + std::to_string(context_length) +
                                        ": no room is left for an answer; shorten the conversation");
  }
  check_ids(options.prompt_ids, "promptIds", vocab_size);
  if (options.max_tokens < 1) throw EngineError("bad_option", "maxTokens must be at least 1");
}

Answer::Answer(const GenerateOptions& options, int64_t vocab_size, int64_t context_length)
    : stop_ids_(checked(options, vocab_size, context_length).stop_ids),
      most_(options.max_tokens),
      room_(context_length - static_cast<int64_t>(options.prompt_ids.size())),
      sampler_(options.sampling, vocab_size, options.prompt_ids),
      text_(options.tokenizer, options.stop_strings) {
  ids_.reserve(static_cast<size_t>(std::min(most_, room_)));
}

GeneratedToken Answer::next(float* logits) {
  if (reason_) throw EngineError("wrong_state", "the answer has ended");
  return add(sampler_.next(logits));
}

GeneratedToken Answer::accept(int32_t greedy_id, double logprob) { return add(sampler_.accept(greedy_id, logprob)); }

GeneratedToken Answer::add(const Sampler::Choice& choice) {
  GeneratedToken token;
  token.id = choice.id;
  token.logprob = choice.logprob;
  ids_.push_back(choice.id);
  const int64_t answered = static_cast<int64_t>(ids_.size());
  const bool is_stop = std::find(stop_ids_.begin(), stop_ids_.end(), choice.id) != stop_ids_.end();
  token.text = is_stop ? std::string() : text_.push(choice.id);
  if (is_stop) {
    reason_ = StopReason::eos;
  } else if (text_.stopped()) {
    reason_ = StopReason::stop_string;
  } else if (answered == most_) {
    reason_ = StopReason::length;
  } else if (answered == room_) {
    reason_ = StopReason::context;
  }
  if (reason_) token.text += text_.finish();
  return token;
}

}  // namespace caravan
