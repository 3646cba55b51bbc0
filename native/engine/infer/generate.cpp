// The loop of an answer: draw a token, tell it, read it.
#include <chrono>
#include <optional>

#include "engine/infer/answer.h"
#include "engine/infer/held_memory.h"
#include "engine/infer/inference_model.h"
#include "engine/infer/turn_queue.h"

namespace caravan {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

bool is_set(const std::atomic<bool>* flag) { return flag != nullptr && flag->load(); }

}  // namespace

GenerateResult InferenceModel::generate(const GenerateOptions& options, const TokenListener& on_token) {
  Answer answer(options, config().vocab_size, context_length());
  HeldMemory held(held_);
  const ExecPool::Lease lease(execs_);
  CachedDecoder decoder(lease.exec(), model_, compute_dtype_, context_length());
  std::optional<TurnQueue::Seat> seat;

  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(options.prompt_ids.size());
  const Clock::time_point began = Clock::now();
  std::optional<StopReason> reason;
  if (!decoder.read(options.prompt_ids, options.cancelled)) reason = StopReason::cancelled;
  const Clock::time_point answering = Clock::now();
  while (!reason) {
    held.set(decoder.memory_bytes());
    CachedDecoder::Found& found = decoder.found();
    GeneratedToken token =
        answer.is_greedy() ? answer.accept(found.greedy_id, found.greedy_logprob) : answer.next(found.logits.data());
    if (options.report_experts) {
      token.experts = found.experts;
      token.expert_weights = found.expert_weights;
    }
    result.text += token.text;
    if (on_token) on_token(token);
    reason = answer.reason();
    if (reason) break;

    if (is_set(options.cancelled)) {
      reason = StopReason::cancelled;
    } else {
      if (!seat) seat.emplace(*turns_);
      seat->take({&decoder, answer.ids().back(), !answer.is_greedy()});
    }
  }
  result.ids = answer.ids();
  result.stop_reason = *reason;
  result.prompt_ms = milliseconds(began, answering);
  result.generate_ms = milliseconds(answering, Clock::now());
  if (result.ids.size() > 1 && result.generate_ms > 0.0) {
    result.tokens_per_second = static_cast<double>(result.ids.size() - 1) / result.generate_ms * 1e3;
  }
  return result;
}

}  // namespace caravan
