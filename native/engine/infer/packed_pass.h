// A forward pass over whole rows laid end to end, without a cache: scoring, routing, and logits of every position.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/model/layer.h"
#include "engine/model/staged_batch.h"

namespace caravan {

class PackedPass {
 public:
  PackedPass(const Exec& exec, std::shared_ptr<const Model> model, DType activation);

  /// Called after each layer with its experts' choices and their weights, (tokens, top-k) in host memory; null without
  /// experts.
  using LayerListener = std::function<void(const Layer& layer, const int32_t* chosen, const float* weights)>;

  /// Runs every layer over `rows`, each a sequence of its own, at least one token in all. What a row gets does not
  /// depend on the rows beside it.
  void run(std::span<const std::span<const int32_t>> rows, const LayerListener& on_layer = {});

  /// Calls read(i, logits (V)) for each of `tokens` (numbers of tokens of the last run, end to end), from several
  /// threads.
  void read_logits(std::span<const int32_t> tokens, const std::function<void(size_t, const float*)>& read);

  size_t memory_bytes() const;

 private:
  template <typename T>
  const T* on_host(const T* values, int64_t count, std::vector<T>& copy);

  Exec exec_;
  std::shared_ptr<const Model> model_;
  DType activation_;
  Arena activations_;
  Arena scratch_;
  StagedBatch staged_;
  PassAngles angles_;
  Pass pass_;  // of the last run
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> cu_seqlens_;
  std::vector<int32_t> chosen_;  // of one layer, where the device's memory is not the host's
  std::vector<float> weights_;
  Ptr stream_;  // (N, C) the last layer's output
};

}  // namespace caravan
