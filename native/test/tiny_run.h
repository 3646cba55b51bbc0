// A whole training run of a few seconds in a folder of its own: a tiny stored model, token shards that can be learned,
// and options.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/train/train_step.h"
#include "engine/train/trainer.h"
#include "tiny_model.h"

namespace caravan::test {

/// A folder below the system's temporary one; deleted with this object.
class TempFolder {
 public:
  explicit TempFolder(const std::string& name);
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string path(const std::string& name = "") const {
    return name.empty() ? path_.string() : (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

/// Writes the tiny model's config.json and model.safetensors.
void write_tiny_model(const std::string& dir, const std::string& family = "llama");

/// `rows` conversations of 6 to 20 tokens that count upwards in steps of their source's own width: "ones", "twos" and
/// "threes". The later two thirds are targets.
void write_counting_shard(const std::string& path, int rows, uint32_t seed);

/// Options over write_tiny_model() and two counting shards (40 and 8 rows) in `folder`: 8 conversations a step, 2 epochs
/// of 5 steps, in micro-batches of 2 bins of 24 tokens, with dropout.
TrainOptions tiny_run(const TempFolder& folder, Method method);

/// What a run told.
struct Told {
  std::vector<std::string> phases;
  std::optional<SessionOpened> opened;
  size_t told_before_opened = 0;  // steps and evaluations
  std::vector<StepMetrics> steps;
  std::vector<EvaluationMetrics> evaluations;
  std::vector<CheckpointWritten> checkpoints;
  std::vector<std::string> warnings;
  TrainResult result;
  std::string error_code;  // empty: it returned
  std::string error;
};

/// Runs on this thread. `stop_at` > 0: stops after that step, with a checkpoint unless `discard`.
Told train(const TrainOptions& options, int64_t stop_at = 0, bool discard = false);

/// The gradients of one step, and what it found.
StepGradients make_gradients(TrainingSession& session, const TrainOptions& options, StepPlan& plan, int64_t step);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

}  // namespace caravan::test
