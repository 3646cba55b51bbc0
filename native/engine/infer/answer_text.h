// The text of an answer while its ids arrive: whole characters only, and never a part of a stop string.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/tokenizer.h"

namespace caravan {

class AnswerText {
 public:
  /// @throws EngineError bad_option for an empty stop string, or stop strings without a tokenizer.
  AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stop_strings);

  /// The text that has become certain with this id. What may yet turn out to begin a stop string is held back.
  std::string push(int32_t id);
  /// What was held back, at the end of an answer that no stop string ended.
  std::string finish();
  /// Whether a stop string has come: the one that was complete first, whatever the tokens' borders. Nothing follows.
  bool stopped() const { return stopped_; }

 private:
  std::string give(const std::string& more);
  size_t held_back() const;

  std::optional<StreamDecoder> decoder_;
  std::vector<std::string> stop_strings_;
  std::string pending_;  // decoded, not given out
  bool stopped_ = false;
};

}  // namespace caravan
