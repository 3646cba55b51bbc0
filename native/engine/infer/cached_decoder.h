// One conversation as the model sees it: what has been read so far, in a cache, and the logits of what may follow.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "engine/infer/kv_cache.h"
#include "engine/model/layer.h"
#include "engine/model/staged_batch.h"

namespace caravan {

/// Long inputs run in chunks through the packed products; a single token through those that read each weight once, and
/// through the chosen experts alone. Memory is cut once for a chunk; a token allocates none but a block of cache.
class CachedDecoder {
 public:
  CachedDecoder(const Exec& exec, std::shared_ptr<const Model> model, DType activation, int64_t limit);

  /// Reads `ids` (at least one) after all that was read before; false where `cancelled` (may be null) was set before
  /// the last chunk: the conversation is then good for nothing more.
  bool read(std::span<const int32_t> ids, const std::atomic<bool>* cancelled = nullptr);

  int64_t length() const { return length_; }
  /// (V) f32 after the last id read; valid until the next.
  float* logits() { return logits_.data(); }
  /// (layers, top-k) of the last id read; empty without experts.
  const std::vector<int32_t>& experts() const { return experts_; }
  const std::vector<float>& expert_weights() const { return expert_weights_; }
  size_t memory_bytes() const;

 private:
  void read_chunk(std::span<const int32_t> ids, int64_t length, bool last);
  void keep_experts(const Layer& layer, const ExpertActivations& experts, int64_t n);
  void read_results();

  Exec exec_;
  std::shared_ptr<const Model> model_;
  DType activation_;
  int64_t limit_;
  int64_t length_ = 0;
  KvCache cache_;
  Arena activations_;
  Arena scratch_;
  StagedBatch staged_;
  PassAngles angles_;
  DeviceBuffer results_;  // logits (V, f32), then of every layer the chosen experts (K, i32) and their weights (K, f32)
  std::vector<float> logits_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> experts_;
  std::vector<float> expert_weights_;
};

}  // namespace caravan
