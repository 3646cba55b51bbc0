// One micro-batch on the host: conversations laid end to end, positions starting again with each, and what they should
// predict.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/head.h"

namespace caravan {

class MicroBatch {
 public:
  /// Appends a conversation of `length` tokens. `is_target` (length) marks the tokens to be predicted: token j is scored
  /// in row j - 1, so a mark on the first token counts for nothing. `conversation`: index in the step's batch.
  void add(const int32_t* ids, const uint8_t* is_target, int64_t length, int32_t conversation);
  /// Appends `rows` padding rows: a sequence of their own that no loss, expert or balance term sees.
  void pad(int64_t rows);

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  int64_t valid_tokens() const { return valid_tokens_; }
  int64_t padding() const { return size() - valid_tokens_; }
  int64_t target_count() const { return static_cast<int64_t>(target_rows_.size()); }
  /// The conversation of each target, in the order of targets().
  const std::vector<int32_t>& target_conversations() const { return target_conversations_; }

  /// Views; valid while this object lives unchanged.
  Tokens tokens() const;
  Targets targets() const;

 private:
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> conversations_;
  std::vector<uint8_t> valid_;
  std::vector<int32_t> cu_seqlens_ = {0};
  std::vector<int32_t> target_rows_;
  std::vector<int32_t> target_ids_;
  std::vector<int32_t> target_conversations_;
  int64_t valid_tokens_ = 0;
};

}  // namespace caravan
