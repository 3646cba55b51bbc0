// What a run tells its listener.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace caravan {

struct SourceLoss {
  std::string source;
  double loss = 0.0;  // mean cross entropy per target token
  int64_t target_tokens = 0;
  int64_t rows = 0;
};

struct StepMetrics {
  int64_t step = 0;  // from 1
  int64_t total_steps = 0;
  double epoch = 0.0;  // epochs seen after this step, fractional
  double loss = 0.0;   // cross entropy per target token; not finite when the step was skipped for it
  std::vector<SourceLoss> loss_by_source;
  double balance_loss = 0.0;       // alpha times the sum over layers: alpha * L when balanced
  double balance_grad_norm = 0.0;  // of the balance term alone, in the routers' weights
  double lr = 0.0;
  double grad_norm = 0.0;  // before clipping
  bool skipped = false;
  int64_t tokens = 0;  // without padding
  int64_t target_tokens = 0;
  int64_t padding_tokens = 0;
  double step_ms = 0.0;
  double tokens_per_second = 0.0;
  int64_t memory_bytes = 0;          // held by the engine; the process's peak on the CPU
  std::vector<float> expert_shares;  // (L, E) of the step's assignments; empty without experts
  std::vector<int32_t> rows;         // of the training shard, in the order of the step
  std::vector<float> row_losses;     // mean loss of each row
};

struct EvaluationMetrics {
  int64_t step = 0;
  double loss = 0.0;
  std::vector<SourceLoss> by_source;
  double evaluation_ms = 0.0;
};

struct CheckpointWritten {
  int64_t step = 0;
  std::string path;
  int64_t bytes = 0;
};

/// Told when a run's model stands, before its first step. A resumed run tells what its first start measured.
struct SessionOpened {
  double step_zero_difference = 0.0;      // as in TrainResult
  double quantization_difference = -1.0;  // as in TrainResult
};

/// Called on the trainer's thread; none may block for long, none may throw. Unset ones are skipped.
struct TrainListener {
  std::function<void(const std::string& phase)> on_phase;       // loading evaluating training saving paused finished
  std::function<void(int64_t done, int64_t total)> on_loading;  // bytes of the base model's files, a few times a second
  std::function<void(const SessionOpened&)> on_opened;
  std::function<void(const StepMetrics&)> on_step;
  std::function<void(const EvaluationMetrics&)> on_evaluation;
  std::function<void(const CheckpointWritten&)> on_checkpoint;
  std::function<void(const std::string& level, const std::string& message)> on_log;  // info, warning
};

struct TrainResult {
  std::string reason;  // finished, stopped
  int64_t step = 0;
  int64_t total_steps = 0;
  std::string checkpoint;                 // newest; may be empty
  double step_zero_difference = 0.0;      // max |logit| between the crafted model at step 0 and the same stored base
  double quantization_difference = -1.0;  // max |logit| between stored base and unquantised; < 0: base not quantised
};

}  // namespace caravan
