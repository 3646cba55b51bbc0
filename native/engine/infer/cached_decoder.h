// One conversation as the model sees it: what has been read so far, in a cache, and what may follow.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "engine/infer/kv_cache.h"
#include "engine/model/layer.h"
#include "engine/model/staged_batch.h"

namespace caravan {

/// A prompt runs in chunks through the packed products, with memory that is given back after it. What follows is read
/// token by token, in a SharedStep.
class CachedDecoder {
 public:
  CachedDecoder(const Exec& exec, std::shared_ptr<const Model> model, DType activation, int64_t limit);

  /// What the last id read leads to.
  struct Found {
    int32_t greedy_id = 0;  // the first of the largest logits
    double greedy_logprob = 0.0;
    std::vector<float> logits;     // (V) f32; empty where a step was not asked for them
    std::vector<int32_t> experts;  // (layers, top-k); empty without experts
    std::vector<float> expert_weights;
  };

  /// Reads `ids` (at least one) after all that was read before; false where `cancelled` (may be null) was set before
  /// the last chunk: the conversation is then good for nothing more.
  bool read(std::span<const int32_t> ids, const std::atomic<bool>* cancelled = nullptr);

  int64_t length() const { return length_; }
  Found& found() { return found_; }
  size_t memory_bytes() const { return cache_.bytes(); }

  // For a SharedStep, while nobody else uses the conversation.
  const KvCache& cache() const { return cache_; }
  /// @throws EngineError where `tokens` more are more than the limit
  void make_room(int64_t tokens);
  void has_read(Found found);

 private:
  struct Reading;
  void read_chunk(Reading& reading, std::span<const int32_t> ids, int64_t length, bool last);

  Exec exec_;
  std::shared_ptr<const Model> model_;
  DType activation_;
  int64_t limit_;
  int64_t length_ = 0;
  KvCache cache_;
  Found found_;
};

}  // namespace caravan
