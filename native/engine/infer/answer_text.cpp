#include "engine/infer/answer_text.h"

#include <algorithm>

#include "engine/platform/error.h"

namespace caravan {

AnswerText::AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {
  if (tokenizer) decoder_.emplace(std::move(tokenizer));
  if (!stop_strings_.empty() && !decoder_) {
    throw EngineError("bad_option", "stopStrings need a tokenizer: without one an answer has no text");
  }
  for (const std::string& stop : stop_strings_) {
    if (stop.empty()) throw EngineError("bad_option", "stopStrings holds an empty string, which every text contains");
  }
}

std::string AnswerText::push(int32_t id) { return decoder_ && !stopped_ ? give(decoder_->push(id)) : std::string(); }

std::string AnswerText::finish() {
  if (!decoder_ || stopped_) return {};
  std::string text = give(decoder_->finish());
  if (!stopped_) text += std::exchange(pending_, {});
  return text;
}

std::string AnswerText::give(const std::string& more) {
  pending_ += more;
  size_t first_end = std::string::npos, start = std::string::npos;
  for (const std::string& stop : stop_strings_) {
    const size_t at = pending_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < start)) {
      first_end = end;
      start = at;
    }
  }
  stopped_ = start != std::string::npos;
  const size_t certain = stopped_ ? start : pending_.size() - held_back();
  std::string text = pending_.substr(0, certain);
  pending_.erase(0, certain);
  return text;
}

/// Length of the longest end of `pending_` that begins a stop string.
size_t AnswerText::held_back() const {
  size_t longest = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t length = std::min(stop.size() - 1, pending_.size()); length > longest; --length) {
      if (pending_.compare(pending_.size() - length, length, stop, 0, length) == 0) longest = length;
    }
  }
  return longest;
}

}  // namespace caravan
