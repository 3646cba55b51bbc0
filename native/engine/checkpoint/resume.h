// Taking up a run where a checkpoint left it.
#pragma once

#include <functional>
#include <string>

#include "engine/checkpoint/checkpoint.h"
#include "engine/train/adamw.h"
#include "engine/train/train_options.h"

namespace caravan {

struct VerifiedCheckpoint {
  std::string path;
  CheckpointManifest manifest;
};

/// `resume_from` itself if it verifies, else the newest before it in the same folder that does; each one passed over is
/// told to `warn`. A folder of checkpoints stands for its newest. @throws EngineError bad_file when none verifies.
VerifiedCheckpoint newest_verified_checkpoint(const std::string& resume_from,
                                              const std::function<void(const std::string&)>& warn);

/// Holds a run to its first options: the numbers of a run must not change half-way. @throws EngineError bad_option or
/// mix_mismatch, naming the field and both values. `rows` and `tokens`: of the training shard.
void check_resumable(const VerifiedCheckpoint& checkpoint, const TrainOptions& options, int64_t rows, int64_t tokens);

}  // namespace caravan
