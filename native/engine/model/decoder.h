// The whole model over one micro-batch: embed, layers, loss, and back. Owns the memory of activations, planned once for
// the largest micro-batch.
#pragma once

#include <memory>
#include <vector>

#include "engine/model/head.h"
#include "engine/model/staged_batch.h"

namespace caravan {

struct DecoderOptions {
  DType activation = DType::f32;
  // Keep a layer's input alone, and run its forward pass again before its backward pass: so of the first
  // `recompute_layers` layers, 0 for all.
  bool recompute = false;
  int64_t recompute_layers = 0;
  bool keep_outputs = false;  // with `recompute`: not the products that make its attention's and its FFN's output
  int64_t max_tokens = 0;     // N of the largest micro-batch
  int64_t max_targets = 0;
  int64_t micro_batches = 1;  // of the largest step
};

/// Of how many layers the forward pass is run again.
int64_t recomputed_layers(const ModelConfig& config, const DecoderOptions& options);

/// Bytes by item of what a Decoder will hold.
struct DecoderMemory {
  size_t activations = 0;  // saved for the backward pass
  size_t workspace = 0;    // scratch of one layer
  size_t logits = 0;       // one chunk
  size_t results = 0;      // what the micro-batches of a step find
};
DecoderMemory plan_decoder_memory(const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                                  const DecoderOptions& options);

/// A micro-batch's place in its optimizer step.
struct StepPlace {
  uint32_t seed = 0;
  uint32_t step = 1;   // optimizer step, from 1
  uint32_t micro = 0;  // micro-batch of the step
  bool dropout = true;
  float loss_scale = 1.0f;      // 1 / target tokens of the step's whole batch
  float balance_weight = 1.0f;  // valid tokens of the micro-batch / of the step
};

/// Host copies of what a pass found.
struct MicroBatchResult {
  std::vector<float> losses;               // (targets) cross entropy
  std::vector<float> balance_loss;         // (L) unscaled: 1 when balanced; empty without experts
  std::vector<int64_t> tokens_per_expert;  // (L, E)
};

/// What it is given and what it returns lies in host memory.
class Decoder {
 public:
  Decoder(const Exec& exec, std::shared_ptr<const Model> model, const DecoderOptions& options);

  /// Forgets what earlier steps left.
  void begin_step();
  /// Adds the gradients of loss_scale * sum(losses) + alpha * balance_weight * sum over layers of the balance loss. Only
  /// enqueues: what the pass finds stays on the device.
  void accumulate(const Tokens& tokens, const Targets& targets, const StepPlace& place);
  /// What each micro-batch since begin_step found, in order. Waits for them.
  std::vector<MicroBatchResult> collect();
  /// Sum of the squares of those micro-batches' losses; device memory.
  const double* squared_losses() const { return &sums_.as<StepSums>()->squared_losses; }
  /// One micro-batch as a step of its own.
  MicroBatchResult forward_backward(const Tokens& tokens, const Targets& targets, const StepPlace& place);
  /// Losses alone, without dropout (`balance_loss` and `tokens_per_expert` included).
  MicroBatchResult evaluate(const Tokens& tokens, const Targets& targets);
  /// Logits (M, V) f32 of `rows` (M).
  void logits(const Tokens& tokens, const int32_t* rows, int64_t m, float* out);

  /// The balance term's own gradient in the routers' weights, summed since begin_step: its norm, by layers in order.
  double balance_gradient_norm() const;

  const Model& model() const { return *model_; }
  const DecoderOptions& options() const { return options_; }
  /// Bytes held now.
  size_t memory_bytes() const;

 private:
  struct StepSums {
    double squared_losses;
    double squared_balance;
  };
  /// What one micro-batch left on the device.
  struct Found {
    const float* losses = nullptr;  // (targets)
    int64_t targets = 0;
    const char* balance = nullptr;  // a copy of balance_buffer_; null without experts
  };

  Pass pass_of(const Tokens& host, const Tokens& tokens, const StepPlace& place);
  Ptr forward(const Pass& pass, const Tokens& tokens, bool keep);
  MicroBatchResult read(const Found& found) const;

  Exec exec_;
  std::shared_ptr<const Model> model_;
  DecoderOptions options_;
  Arena activations_;
  Arena scratch_;
  StagedBatch staged_;
  PassAngles angles_;
  std::vector<LayerActivations> layers_;
  std::vector<BalanceState> balance_;
  DeviceBuffer balance_buffer_;
  DeviceBuffer balance_gradient_;
  DeviceBuffer sums_;  // StepSums
  Arena results_;
  std::vector<Found> found_;
};

}  // namespace caravan
