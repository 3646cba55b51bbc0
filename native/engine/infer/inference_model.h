// A model opened for chat and scoring: the stored base, and what a checkpoint adds, unmerged.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/infer/exec_pool.h"
#include "engine/infer/generation.h"
#include "engine/model/model.h"

namespace caravan {

class TurnQueue;

struct OpenModelOptions {
  std::string model_dir;  // config.json and safetensors
  BaseDType base_dtype = BaseDType::bf16;
  DType compute_dtype = DType::f32;
  bool double_quant = true;
  /// A folder step-000123: its LoRA, adapters and routers are applied; a `full` or `upcycle` one replaces the weights. Or
  /// the folder of an adapter: PEFT's, or one that this program exported.
  /// Empty: the base as stored.
  std::string checkpoint_dir;
  int threads = 0;  // 0: one per core
  Device device = Device::cpu;
};

struct ScoreResult {
  double logprob = 0.0;                // sum of the next
  std::vector<double> token_logprobs;  // one per scored id
  bool greedy = true;                  // every scored id had the largest logit
};

struct RouteResult {
  int64_t layers = 0;
  int64_t experts = 0;
  int64_t groups = 0;
  // (groups, layers, experts): tokens that chose the expert first, second, and in any slot.
  std::vector<double> first;
  std::vector<double> second;
  std::vector<double> any;
  std::vector<double> tokens;  // (groups)
};

struct TokenRoutes {
  int64_t layers = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
  // (tokens, layers, top-k): the experts of each token, best first, and their weights.
  std::vector<int32_t> chosen;
  std::vector<float> weights;
};

/// Every method may be called from several threads at once: on the CPU passes of several callers share the threads and
/// take turns kernel by kernel; on a GPU each has a stream of its own. Answers under way read their tokens together, so
/// that each weight is read once for all of them. Nothing that one call does changes another's result.
class InferenceModel {
 public:
  /// `progress` (done, total bytes) may be empty.
  /// @throws EngineError bad_file, bad_option, unsupported_architecture, out_of_memory
  static std::shared_ptr<InferenceModel> open(const OpenModelOptions& options,
                                              const std::function<void(int64_t, int64_t)>& progress = {});
  /// Over a model in memory.
  InferenceModel(std::shared_ptr<const Model> model, DType compute_dtype, int threads);
  ~InferenceModel();
  InferenceModel(const InferenceModel&) = delete;
  InferenceModel& operator=(const InferenceModel&) = delete;

  const ModelConfig& config() const { return model_->config(); }
  /// Shared with other models of the same base; null where a checkpoint holds every weight.
  const BaseModel* base() const { return model_->base(); }
  int64_t num_experts() const { return model_->method().has_experts() ? model_->method().num_experts : 0; }
  int64_t top_k() const { return model_->method().has_experts() ? model_->method().top_k : 0; }
  /// Positions of the longest conversation, prompt and answer together.
  int64_t context_length() const { return model_->positions(); }
  /// Bytes held now: weights, and the caches and working memory of the calls under way.
  size_t memory_bytes() const;

  /// Calls `on_token` (may be empty) for each new token, in order, on the calling thread. An exception of it ends the
  /// generation and reaches the caller.
  /// @throws EngineError bad_option naming the field, and where the prompt leaves no room for a token
  GenerateResult generate(const GenerateOptions& options, const TokenListener& on_token = {});
  /// The most answers that have read a token in one pass so far.
  int64_t most_answers_together();

  /// Log-probabilities of each row's ids from `first_scored[i]` (at least 1) on, given all that stands before, in fp64
  /// from fp32 logits.
  /// @throws EngineError bad_option naming the row: first_scored outside [1, length], an id outside the vocabulary
  std::vector<ScoreResult> score(std::span<const std::vector<int32_t>> rows, std::span<const int64_t> first_scored);

  /// Which experts the tokens of each row chose; `group[i]` in [0, groups).
  /// @throws EngineError bad_option for a model without experts
  RouteResult route(std::span<const std::vector<int32_t>> rows, std::span<const int64_t> group, int64_t groups);

  /// Which experts each token of one row chose in each layer.
  /// @throws EngineError bad_option for a model without experts
  TokenRoutes route_tokens(std::span<const int32_t> row);

  /// (tokens, vocab) of one row.
  std::vector<float> logits(std::span<const int32_t> row);

 private:
  void check_row(std::span<const int32_t> row, size_t index) const;
  void check_has_experts() const;
  struct PackedRows;
  void run_packed(std::span<const std::vector<int32_t>> rows,
                  const std::function<void(const PackedRows&, const Layer&, const int32_t*, const float*)>& on_layer,
                  const std::function<void(PackedRows&)>& after);

  std::shared_ptr<const Model> model_;
  DType compute_dtype_;
  ExecPool execs_;
  std::unique_ptr<TurnQueue> turns_;  // runs on execs_
  std::atomic<size_t> held_{0};       // bytes of the calls under way
};

}  // namespace caravan
