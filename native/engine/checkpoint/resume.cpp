#include "engine/checkpoint/resume.h"

#include <filesystem>

#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/platform/error.h"
#include "engine/train/train_options_json.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

/// `resume_from` and the older ones beside it, newest first.
std::vector<std::string> candidates(const std::string& resume_from) {
  const fs::path path = fs::path(resume_from).lexically_normal();
  const fs::path dir = path.has_filename() ? path : path.parent_path();  // without a trailing slash
  std::vector<std::string> paths;
  const std::vector<CheckpointInfo> inside = find_checkpoints(dir.string());
  if (!inside.empty()) {
    for (const CheckpointInfo& checkpoint : inside) paths.push_back(checkpoint.path);
    return paths;
  }
  paths.push_back(dir.string());
  for (const CheckpointInfo& checkpoint : find_checkpoints(dir.parent_path().string())) {
    // Names of one width sort as their steps do; longer ones are of later steps.
    const std::string name = fs::path(checkpoint.path).filename().string(), wanted = dir.filename().string();
    if (name.size() < wanted.size() || (name.size() == wanted.size() && name < wanted)) {
      paths.push_back(checkpoint.path);
    }
  }
  return paths;
}

void check_same(const char* code, const std::string& what, const std::map<std::string, std::string>& asked,
                const std::map<std::string, std::string>& stored, const std::string& mend) {
  const auto value = [](const auto& map, const std::string& key) {
    const auto found = map.find(key);
    return found == map.end() ? std::string("not set") : found->second;
  };
  std::map<std::string, std::string> names = asked;
  names.insert(stored.begin(), stored.end());
  for (const auto& [name, unused] : names) {
    const std::string now = value(asked, name), then = value(stored, name);
    if (now == then) continue;
    throw EngineError(code, what + name + " is " + now + ", but the run that is resumed has " + then + "; " + mend);
  }
}

}  // namespace

VerifiedCheckpoint newest_verified_checkpoint(const std::string& resume_from,
                                              const std::function<void(const std::string&)>& warn) {
  for (const std::string& path : candidates(resume_from)) {
    const std::string problem = checkpoint_problem(path);
    if (problem.empty()) return {path, read_checkpoint_manifest(path)};
    warn("checkpoint passed over: " + problem);
  }
  throw EngineError("bad_file", resume_from +
                                    ": neither this checkpoint nor one before it can be read whole; "
                                    "start the run again from its first step");
}

void check_resumable(const VerifiedCheckpoint& checkpoint, const TrainOptions& options, int64_t rows, int64_t tokens) {
  const CheckpointManifest& manifest = checkpoint.manifest;
  check_same("bad_option", "", defining_options(options), manifest.defining,
             "resume with the run's own options, or start a new run");
  check_same("mix_mismatch", "identity: ", options.identity, manifest.identity,
             "resume with the model and the mix that the run began with, or start a new run");
  const std::map<std::string, std::string> shard = {{"rows", std::to_string(rows)}, {"tokens", std::to_string(tokens)}};
  const std::map<std::string, std::string> stored = {{"rows", std::to_string(manifest.rows)},
                                                     {"tokens", std::to_string(manifest.tokens)}};
  check_same("mix_mismatch", options.train_shard + ": number of ", shard, stored,
             "resume with the mix that the run began with, or start a new run");
}

}  // namespace caravan
