#include "engine/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/io/sha256.h"
#include "engine/platform/error.h"
#include "engine/platform/file.h"
#include "kernels/transfer.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

constexpr int64_t copy_grain = int64_t{1} << 20;  // bytes
/// Headers, manifest and the file system's own needs.
constexpr uint64_t spare_bytes = uint64_t{4} << 20;

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

CheckpointFile describe(const fs::path& path) {
  const MappedFile file = MappedFile::open(path.string());
  return {static_cast<int64_t>(file.bytes().size()), sha256_hex(file.bytes())};
}

void write_text(const fs::path& path, const std::string& text) {
  FileWriter writer(path.string());
  writer.write(std::as_bytes(std::span(text)));
  writer.sync_and_close();
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) return;
  const bool full = error == std::errc::no_space_on_device;
  throw EngineError(full ? "disk_full" : "bad_file", path.string() + ": cannot be made: " + error.message());
}

/// A half-deleted folder must not be taken for a checkpoint, so it loses its name first.
void remove_folder(const fs::path& path) {
  const fs::path hidden = path.parent_path() / std::string(".").append(path.filename().string()).append(".deleted");
  std::error_code ignored;
  fs::remove_all(hidden, ignored);
  fs::rename(path, hidden, ignored);
  fs::remove_all(hidden, ignored);
}

}  // namespace

void CheckpointSnapshot::take(const Exec& exec, std::vector<TensorToWrite> trainable,
                              std::vector<TensorToWrite> optimizer) {
  trainable_ = std::move(trainable);
  optimizer_ = std::move(optimizer);
  size_t total = 0;
  for (const auto* tensors : {&trainable_, &optimizer_}) {
    for (const TensorToWrite& tensor : *tensors) total += aligned(tensor.data.size());
  }
  if (memory_.bytes() < total) memory_ = DeviceBuffer(Device::cpu, total);
  char* at = memory_.data();
  for (auto* tensors : {&trainable_, &optimizer_}) {
    for (TensorToWrite& tensor : *tensors) {
      const size_t bytes = tensor.data.size();
      const auto* from = reinterpret_cast<const char*>(tensor.data.data());
      if (exec.device == Device::cpu) {
        parallel_for(exec, static_cast<int64_t>(bytes), copy_grain,
                     [=](int64_t first, int64_t last) { std::memcpy(at + first, from + first, last - first); });
      } else {
        download(exec, at, from, bytes);
      }
      tensor.data = {reinterpret_cast<const std::byte*>(at), bytes};
      at += aligned(bytes);
    }
  }
}

size_t CheckpointSnapshot::bytes() const {
  size_t total = 0;
  for (const auto* tensors : {&trainable_, &optimizer_}) {
    for (const TensorToWrite& tensor : *tensors) total += tensor.data.size();
  }
  return total;
}

CheckpointWritten write_checkpoint(const std::string& checkpoint_dir, const CheckpointSnapshot& snapshot,
                                   CheckpointManifest manifest,
                                   const std::function<uint64_t(const std::string&)>& free_bytes) {
  const std::string name = checkpoint_name(manifest.progress.step);
  const fs::path dir(checkpoint_dir), whole = dir / name, partial = dir / ("." + name + ".partial");
  const uint64_t needed = snapshot.bytes() + spare_bytes;
  if (const uint64_t free = free_bytes(checkpoint_dir); free < needed) {
    throw EngineError("disk_full", whole.string() + ": a checkpoint takes " + std::to_string(needed >> 20) +
                                       " MiB, but the disk has only " + std::to_string(free >> 20) +
                                       " MiB left; free some space and resume");
  }
  try {
    fs::remove_all(partial);
    make_folder(partial);
    const std::map<std::string, std::string> metadata = {{"format", "caravan-checkpoint"}};
    write_safetensors((partial / checkpoint_trainable_name).string(), snapshot.trainable(), metadata);
    write_safetensors((partial / checkpoint_optimizer_name).string(), snapshot.optimizer(), metadata);
    for (const char* file : {checkpoint_trainable_name, checkpoint_optimizer_name}) {
      manifest.files[file] = describe(partial / file);
    }
    write_text(partial / checkpoint_manifest_name, write_manifest(manifest));
    sync_directory(partial.string());
    // A resumed run comes again to steps that lie there already, damaged or of a future that was given up.
    if (fs::exists(whole)) remove_folder(whole);
    rename_path(partial.string(), whole.string());
    sync_directory(checkpoint_dir);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw;
  }
  return {manifest.progress.step, whole.string(), manifest.bytes()};
}

void prune_checkpoints(const std::string& checkpoint_dir, int64_t keep, int64_t step) {
  struct Kept {
    std::string path;
    double held_out_loss;
  };
  std::vector<Kept> whole;
  std::vector<std::string> damaged;
  for (const CheckpointInfo& checkpoint : find_checkpoints(checkpoint_dir)) {
    if (checkpoint.step > step) continue;  // of a future that this run may yet reach
    try {
      whole.push_back({checkpoint.path, read_checkpoint_manifest(checkpoint.path).held_out_loss});
    } catch (const EngineError&) {
      damaged.push_back(checkpoint.path);
    }
  }
  if (whole.empty()) return;
  for (const std::string& path : damaged) remove_folder(path);
  // Of equals the oldest is the best: later ones only had more time to fit the training rows.
  size_t best = whole.size();
  for (size_t i = 0; i < whole.size(); ++i) {
    if (std::isnan(whole[i].held_out_loss)) continue;
    if (best == whole.size() || whole[i].held_out_loss <= whole[best].held_out_loss) best = i;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    if (std::cmp_greater_equal(i, keep) && i != best) remove_folder(whole[i].path);
  }
}

void remove_partial_checkpoints(const std::string& checkpoint_dir) {
  std::error_code ignored;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(checkpoint_dir, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(".step-")) continue;
    if (name.ends_with(".partial") || name.ends_with(".deleted")) left.push_back(entry.path());
  }
  for (const fs::path& path : left) fs::remove_all(path, ignored);
}

struct CheckpointWriter::Job {
  std::thread thread;
  std::atomic<bool> done{false};
  CheckpointWritten written;
  std::exception_ptr failure;
};

CheckpointWriter::CheckpointWriter(std::string checkpoint_dir, int64_t keep,
                                   std::function<uint64_t(const std::string&)> free_bytes)
    : dir_(std::move(checkpoint_dir)), keep_(keep), free_bytes_(std::move(free_bytes)) {
  make_folder(dir_);
  remove_partial_checkpoints(dir_);
}

CheckpointWriter::~CheckpointWriter() {
  if (job_) job_->thread.join();
}

std::optional<CheckpointWritten> CheckpointWriter::write(const Exec& exec, std::vector<TensorToWrite> trainable,
                                                         std::vector<TensorToWrite> optimizer,
                                                         CheckpointManifest manifest) {
  std::optional<CheckpointWritten> before = finish();
  snapshot_.take(exec, std::move(trainable), std::move(optimizer));
  job_ = std::make_unique<Job>();
  job_->thread = std::thread([this, job = job_.get(), manifest = std::move(manifest)] {
    try {
      job->written = write_checkpoint(dir_, snapshot_, manifest, free_bytes_);
      prune_checkpoints(dir_, std::max<int64_t>(keep_, 2), manifest.progress.step);
    } catch (...) {
      job->failure = std::current_exception();
    }
    job->done.store(true, std::memory_order_release);
  });
  return before;
}

std::optional<CheckpointWritten> CheckpointWriter::poll() {
  if (!job_ || !job_->done.load(std::memory_order_acquire)) return std::nullopt;
  return finish();
}

std::optional<CheckpointWritten> CheckpointWriter::finish() {
  if (!job_) return std::nullopt;
  job_->thread.join();
  const std::unique_ptr<Job> job = std::move(job_);
  if (job->failure) std::rethrow_exception(job->failure);
  return job->written;
}

void CheckpointWriter::prune(int64_t step) const { prune_checkpoints(dir_, keep_, step); }

}  // namespace caravan
