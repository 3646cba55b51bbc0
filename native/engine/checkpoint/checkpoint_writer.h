// Writes checkpoints in the background: the run hands over a copy of its state and trains on. One at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/io/safetensors.h"
#include "engine/model/device_buffer.h"
#include "engine/platform/file.h"
#include "engine/train/metrics.h"

namespace caravan {

/// A copy of everything that a checkpoint keeps. Its memory is used again by the next one.
class CheckpointSnapshot {
 public:
  void take(const Exec& exec, std::vector<TensorToWrite> trainable, std::vector<TensorToWrite> optimizer);

  const std::vector<TensorToWrite>& trainable() const { return trainable_; }
  const std::vector<TensorToWrite>& optimizer() const { return optimizer_; }
  size_t bytes() const;

 private:
  DeviceBuffer memory_;
  std::vector<TensorToWrite> trainable_;
  std::vector<TensorToWrite> optimizer_;
};

/// Writes `<checkpoint_dir>/step-N` through a hidden folder that is synced and renamed, so that a folder of that name is
/// whole or not there. @throws EngineError disk_full, bad_file: then nothing but the hidden folder has changed.
CheckpointWritten write_checkpoint(const std::string& checkpoint_dir, const CheckpointSnapshot& snapshot,
                                   CheckpointManifest manifest,
                                   const std::function<uint64_t(const std::string&)>& free_bytes);

/// Deletes what is neither among the `keep` newest whole checkpoints up to `step` nor the one of lowest held-out loss.
void prune_checkpoints(const std::string& checkpoint_dir, int64_t keep, int64_t step);

/// Deletes what an interrupted write or deletion left behind.
void remove_partial_checkpoints(const std::string& checkpoint_dir);

class CheckpointWriter {
 public:
  /// Makes the folder where it is not there. `free_bytes`: of the disk that holds a path; tests plant full disks by it.
  CheckpointWriter(std::string checkpoint_dir, int64_t keep,
                   std::function<uint64_t(const std::string&)> free_bytes = free_disk_bytes);
  /// Waits for what is being written.
  ~CheckpointWriter();

  /// Copies the state and returns; waits first for the one before, and tells of it. @throws EngineError that it met.
  std::optional<CheckpointWritten> write(const Exec& exec, std::vector<TensorToWrite> trainable,
                                         std::vector<TensorToWrite> optimizer, CheckpointManifest manifest);
  /// The checkpoint that was finished since it was handed over, once. @throws EngineError that it met.
  std::optional<CheckpointWritten> poll();
  /// The same, after waiting for it.
  std::optional<CheckpointWritten> finish();
  /// At the end of a good run: down to `keep` and the best. While the run goes on the one before the newest stays too,
  /// since no step has yet shown that the newest is worth going on from.
  void prune(int64_t step) const;

 private:
  struct Job;
  std::string dir_;
  int64_t keep_;
  std::function<uint64_t(const std::string&)> free_bytes_;
  CheckpointSnapshot snapshot_;
  std::unique_ptr<Job> job_;
};

}  // namespace caravan
