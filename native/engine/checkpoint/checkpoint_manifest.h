// manifest.json of a checkpoint: what it belongs to, how far it is, and what its files must be.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "engine/train/train_options.h"

namespace caravan {

inline constexpr const char* checkpoint_manifest_name = "manifest.json";
inline constexpr const char* checkpoint_trainable_name = "trainable.safetensors";
inline constexpr const char* checkpoint_optimizer_name = "optimizer.safetensors";
inline constexpr int64_t checkpoint_schema = 1;

/// Everything beside weights and optimizer state that decides how a run goes on.
struct RunProgress {
  int64_t step = 0;               // steps done
  int64_t updates = 0;            // of the optimizer: steps less the skipped ones
  int64_t consecutive_skips = 0;  // steps skipped since the last update
  double step_zero_difference = 0.0;
  double quantization_difference = -1.0;  // < 0: not measured
};

struct CheckpointFile {
  int64_t bytes = 0;
  std::string sha256;
};

struct CheckpointManifest {
  RunProgress progress;
  int64_t total_steps = 0;
  int64_t rows = 0;    // of the training shard
  int64_t tokens = 0;  // of the training shard
  /// Mean held-out loss at this step; NaN where it was not measured.
  double held_out_loss = std::numeric_limits<double>::quiet_NaN();
  std::map<std::string, std::string> defining;  // options that decide the numbers: JSON text by field
  std::map<std::string, std::string> identity;
  std::map<std::string, CheckpointFile> files;  // by name, the manifest itself left out

  /// The defining options as a struct; all others have their defaults.
  TrainOptions options() const;
  /// Bytes of all files but the manifest.
  int64_t bytes() const;
};

/// The file's text: a function of the manifest alone, with a hash of itself as its last member.
std::string write_manifest(const CheckpointManifest& manifest);
/// @throws EngineError bad_file where one byte is not as it was written, or another version wrote it.
CheckpointManifest parse_manifest(const std::string& text, const std::string& file);

}  // namespace caravan
