#include "engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/io/sha256.h"
#include "engine/platform/error.h"
#include "engine/platform/file.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

/// The step of a folder's name; none for other names.
std::optional<int64_t> step_of_name(const std::string& name) {
  if (!name.starts_with("step-")) return std::nullopt;
  int64_t step = 0;
  const char* last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data() + 5, last, step);
  if (error != std::errc() || end != last || step < 0 || name != checkpoint_name(step)) return std::nullopt;
  return step;
}

int64_t bytes_on_disk(const fs::path& dir) {
  int64_t sum = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored)) {
    if (entry.is_regular_file(ignored)) sum += static_cast<int64_t>(entry.file_size(ignored));
  }
  return sum;
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(step));
  return name;
}

CheckpointManifest read_checkpoint_manifest(const std::string& dir) {
  const std::string path = (fs::path(dir) / checkpoint_manifest_name).string();
  const MappedFile file = MappedFile::open(path);
  const std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  return parse_manifest(text, path);
}

void check_checkpoint_file(const std::string& dir, const CheckpointManifest& manifest, const std::string& name) {
  const std::string path = (fs::path(dir) / name).string();
  const auto entry = manifest.files.find(name);
  if (entry == manifest.files.end())
    throw EngineError("bad_file", path + ": the checkpoint's manifest does not list it");
  const MappedFile file = MappedFile::open(path);
  if (std::cmp_not_equal(file.bytes().size(), entry->second.bytes)) {
    throw EngineError("bad_file", path + ": has " + std::to_string(file.bytes().size()) +
                                      " bytes, but was written with " + std::to_string(entry->second.bytes));
  }
  if (sha256_hex(file.bytes()) != entry->second.sha256) {
    throw EngineError("bad_file", path + ": does not match its hash in the manifest: the file is damaged");
  }
}

std::string checkpoint_problem(const std::string& dir) {
  try {
    const CheckpointManifest manifest = read_checkpoint_manifest(dir);
    if (checkpoint_name(manifest.progress.step) != fs::path(dir).filename().string()) {
      return dir + ": its manifest speaks of step " + std::to_string(manifest.progress.step);
    }
    check_checkpoint_file(dir, manifest, checkpoint_trainable_name);
    check_checkpoint_file(dir, manifest, checkpoint_optimizer_name);
    return "";
  } catch (const EngineError& error) {
    return error.what();
  }
}

std::vector<CheckpointInfo> find_checkpoints(const std::string& checkpoint_dir) {
  std::vector<CheckpointInfo> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoint_dir, ignored)) {
    const std::optional<int64_t> step = step_of_name(entry.path().filename().string());
    if (step && entry.is_directory(ignored)) found.push_back({*step, entry.path().string(), 0, ""});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& checkpoint_dir) {
  std::vector<CheckpointInfo> found = find_checkpoints(checkpoint_dir);
  for (CheckpointInfo& checkpoint : found) {
    checkpoint.bytes = bytes_on_disk(checkpoint.path);
    checkpoint.problem = checkpoint_problem(checkpoint.path);
  }
  return found;
}

std::shared_ptr<TrainableSet> load_checkpoint_weights(const Exec& exec, const std::string& dir,
                                                      const ModelConfig& config) {
  const CheckpointManifest manifest = read_checkpoint_manifest(dir);
  check_checkpoint_file(dir, manifest, checkpoint_trainable_name);
  const TrainOptions options = manifest.options();
  auto set = std::make_shared<TrainableSet>(exec.device, config, options.method, options.train_dtype);
  read_trainable_values(exec, dir, *set);
  return set;
}

}  // namespace caravan
