#include "engine/infer/shared_base.h"

#include <filesystem>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/transfer.h"

namespace caravan {

namespace {

namespace fs = std::filesystem;

/// Path, size and time of everything that the base may be read from.
std::string state_of(const std::string& path) {
  std::error_code ignored;
  const auto describe = [&](const fs::path& file) {
    return file.string() + ' ' + std::to_string(fs::file_size(file, ignored)) + ' ' +
           std::to_string(fs::last_write_time(file, ignored).time_since_epoch().count()) + '\n';
  };
  if (!fs::is_directory(path, ignored)) return describe(fs::weakly_canonical(path, ignored));
  std::map<std::string, std::string> files;  // in order
  for (const fs::directory_entry& entry : fs::directory_iterator(path, ignored)) {
    if (entry.is_regular_file(ignored)) files[entry.path().filename().string()] = describe(entry.path());
  }
  std::string all = fs::weakly_canonical(path, ignored).string() + '\n';
  for (const auto& [name, state] : files) all += state;
  return all;
}

std::string key_of(const Exec& exec, const std::string& model_dir, const BaseOptions& options) {
  return state_of(model_dir) + base_dtype_name(options.dtype) + (options.double_quant ? " double" : " single") +
         (options.dense_dtype == DType::f32 ? " f32" : " bf16") + (exec.device == Device::cpu ? " cpu" : " cuda");
}

struct Bases {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<std::mutex>> loading;  // one at a time of each key
  std::map<std::string, std::weak_ptr<const BaseModel>> open;
};

Bases& bases() {
  static Bases all;
  return all;
}

}  // namespace

std::shared_ptr<const BaseModel> open_shared_base(const Exec& exec, const std::string& model_dir,
                                                  const BaseOptions& options,
                                                  const std::function<void(int64_t, int64_t)>& progress) {
  const std::string key = key_of(exec, model_dir, options);
  std::shared_ptr<std::mutex> loading;
  {
    const std::lock_guard lock(bases().mutex);
    std::erase_if(bases().open, [](const auto& entry) { return entry.second.expired(); });
    std::erase_if(bases().loading, [](const auto& entry) { return entry.second.use_count() == 1; });
    std::shared_ptr<std::mutex>& own = bases().loading[key];
    if (own == nullptr) own = std::make_shared<std::mutex>();
    loading = own;
  }
  const std::lock_guard alone(*loading);
  const auto find = [&]() -> std::shared_ptr<const BaseModel> {
    const std::lock_guard lock(bases().mutex);
    const auto found = bases().open.find(key);
    return found == bases().open.end() ? nullptr : found->second.lock();
  };
  if (auto base = find()) return base;
  auto base = load_base_model(exec, model_dir, options, progress);
  synchronize(exec);
  const std::lock_guard lock(bases().mutex);
  bases().open[key] = base;
  return base;
}

}  // namespace caravan
