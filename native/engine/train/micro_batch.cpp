#include "engine/train/micro_batch.h"

namespace caravan {

void MicroBatch::add(const int32_t* ids, const uint8_t* is_target, int64_t length, int32_t conversation) {
  const int32_t start = static_cast<int32_t>(ids_.size());
  for (int32_t j = 0; j < length; ++j) {
    ids_.push_back(ids[j]);
    positions_.push_back(j);
    conversations_.push_back(conversation);
    valid_.push_back(1);
    if (j == 0 || !is_target[j]) continue;
    target_rows_.push_back(start + j - 1);
    target_ids_.push_back(ids[j]);
    target_conversations_.push_back(conversation);
  }
  cu_seqlens_.push_back(static_cast<int32_t>(ids_.size()));
  valid_tokens_ += length;
}

void MicroBatch::pad(int64_t rows) {
  if (rows <= 0) return;
  for (int32_t j = 0; j < rows; ++j) {
    ids_.push_back(0);
    positions_.push_back(j);
    conversations_.push_back(0);
    valid_.push_back(0);
  }
  cu_seqlens_.push_back(static_cast<int32_t>(ids_.size()));
}

Tokens MicroBatch::tokens() const {
  Tokens tokens;
  tokens.n = size();
  tokens.valid_tokens = valid_tokens_;
  tokens.ids = ids_.data();
  tokens.position = positions_.data();
  tokens.conversation = conversations_.data();
  tokens.valid = padding() > 0 ? valid_.data() : nullptr;
  tokens.cu_seqlens = cu_seqlens_.data();
  tokens.sequences = static_cast<int64_t>(cu_seqlens_.size()) - 1;
  return tokens;
}

Targets MicroBatch::targets() const { return {target_count(), target_rows_.data(), target_ids_.data()}; }

}  // namespace caravan
