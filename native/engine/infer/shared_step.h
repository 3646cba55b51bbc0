// One new token of each of several conversations in one pass: every weight is read once for all of them.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/infer/cached_decoder.h"
#include "kernels/captured_work.h"
#include "kernels/decode_layers.h"
#include "kernels/decoding.h"

namespace caravan {

/// What a conversation is to read next.
struct Turn {
  CachedDecoder* decoder = nullptr;
  int32_t id = 0;
  bool wants_logits = false;  // else the greedy choice alone
};

/// A conversation's bits do not depend on which others read beside it. On a GPU a step is recorded and launched as a
/// whole; the host waits once, for what it found.
class SharedStep {
 public:
  SharedStep(const Exec& exec, std::shared_ptr<const Model> model, DType activation);

  /// Conversations that one step may hold: as many as read each weight once, in the order of sums that one alone has.
  int64_t most_turns() const { return most_turns_; }

  /// Reads one id in each of `turns` (at least one, at most most_turns()), all of this model and activation type. Where
  /// it throws, no conversation has read.
  void run(std::span<const Turn> turns);

  CapturedWork& work() { return work_; }
  /// Whether one kernel does all layers; `use` false: piece by piece, as on other devices.
  bool is_fused() const { return fused_ != nullptr; }
  void use_fused(bool use);
  size_t memory_bytes() const;

 private:
  /// Where a step leaves what it found, in results_.
  struct Results {
    int32_t* ids;       // (N) greedy choice
    double* logprobs;   // (N)
    int32_t* experts;   // (layers, N, K)
    float* weights;     // (layers, N, K)
    float* logits;      // (N, V)
    size_t head_bytes;  // of all but logits
  };

  void send_inputs(std::span<const Turn> turns);
  void enqueue(int64_t n, int64_t most, AnglesView angles, const Results& results);
  void enqueue_layers(const Pass& pass, const Tokens& tokens, int64_t most, const Results& results,
                      LayerActivations& acts, Ptr& output);
  const CacheView* caches() const;
  Results place_results(int64_t n) const;
  void read_results(std::span<const Turn> turns, const Results& results);

  Exec exec_;
  std::shared_ptr<const Model> model_;
  DType activation_;
  int64_t most_turns_;
  int64_t chosen_ = 0;  // experts of one token: layers * K
  Arena activations_;
  Arena scratch_;
  PassAngles angles_;
  std::unique_ptr<DecodeLayers> fused_;  // null: the layers run piece by piece
  CapturedWork work_;
  std::vector<int32_t> inputs_;    // ids, positions, rows (most_turns each)
  std::vector<CacheView> caches_;  // (layers, most_turns)
  std::vector<CacheView> sent_;    // what the device has of it
  std::vector<char> head_;         // results but logits, on the host
  DeviceBuffer device_inputs_;
  DeviceBuffer device_caches_;
  DeviceBuffer results_;
};

}  // namespace caravan
