#include "tiny_run.h"

#include <atomic>
#include <fstream>
#include <iterator>

#include "engine/data/token_shard.h"
#include "engine/model/save_model.h"
#include "engine/platform/file.h"
#include "kernels/philox.h"

namespace caravan::test {

namespace fs = std::filesystem;

TempFolder::TempFolder(const std::string& name) {
  static std::atomic<int> count{0};
  path_ = fs::temp_directory_path() /
          ("caravan-" + name + "-" + std::to_string(process_id()) + "-" + std::to_string(count++));
  fs::remove_all(path_);
  fs::create_directories(path_);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void write_tiny_model(const std::string& dir, const std::string& family) {
  const Exec exec;
  const ModelConfig config = tiny_config(family);
  const auto base = make_random_base_model(exec, config, 7, {BaseDType::f32, true, DType::f32});
  TrainableSet set(Device::cpu, config, tiny_method(Method::full), DType::f32);
  set.initialise(exec, *base, 1);
  save_dense_model(dir, config, set, DType::f32);
}

void write_counting_shard(const std::string& path, int rows, uint32_t seed) {
  std::vector<int32_t> ids, source;
  std::vector<int64_t> offsets = {0};
  std::vector<uint8_t> targets;
  for (int row = 0; row < rows; ++row) {
    const Philox4 random = philox(seed, 3, static_cast<uint32_t>(row), 0, 0, 0);
    const int length = 6 + static_cast<int>(random.word[0] % 15);
    const int width = 1 + row % 3;
    for (int j = 0; j < length; ++j) {
      ids.push_back(static_cast<int32_t>((random.word[1] % 60 + static_cast<uint32_t>(j * width)) % 60 + 1));
      targets.push_back(j >= length / 3);
    }
    offsets.push_back(static_cast<int64_t>(ids.size()));
    source.push_back(row % 3);
  }
  write_token_shard(path, {ids, offsets, targets, source, {"ones", "twos", "threes"}, {}});
}

TrainOptions tiny_run(const TempFolder& folder, Method method) {
  write_tiny_model(folder.path("model"));
  write_counting_shard(folder.path("train.safetensors"), 40, 1);
  write_counting_shard(folder.path("validation.safetensors"), 8, 2);
  TrainOptions options;
  options.model_dir = folder.path("model");
  options.train_shard = folder.path("train.safetensors");
  options.validation_shard = folder.path("validation.safetensors");
  options.checkpoint_dir = folder.path("checkpoints");
  options.method = tiny_method(method);
  options.method.lora_dropout = options.method.adapter_dropout = 0.1f;
  options.base_dtype = BaseDType::f32;
  options.batch_size = 8;
  options.micro_batch_size = 2;
  options.seq_len = 24;
  options.epochs = 2;
  options.lr = 2e-3f;
  options.threads = 1;
  options.device = test_device();
  options.identity = {{"model", "tiny"}, {"mix", "counting"}};
  return options;
}

Told train(const TrainOptions& options, int64_t stop_at, bool discard) {
  Told told;
  TrainControl control;
  TrainListener listener;
  listener.on_phase = [&](const std::string& phase) { told.phases.push_back(phase); };
  listener.on_opened = [&](const SessionOpened& opened) {
    told.opened = opened;
    told.told_before_opened = told.steps.size() + told.evaluations.size();
  };
  listener.on_step = [&](const StepMetrics& metrics) {
    told.steps.push_back(metrics);
    if (metrics.step == stop_at) control.stop(discard);
  };
  listener.on_evaluation = [&](const EvaluationMetrics& metrics) { told.evaluations.push_back(metrics); };
  listener.on_checkpoint = [&](const CheckpointWritten& written) { told.checkpoints.push_back(written); };
  listener.on_log = [&](const std::string& level, const std::string& message) {
    if (level == "warning") told.warnings.push_back(message);
  };
  try {
    told.result = run_training(options, listener, control);
  } catch (const EngineError& error) {
    told.error_code = error.code;
    told.error = error.what();
  }
  return told;
}

StepGradients make_gradients(TrainingSession& session, const TrainOptions& options, StepPlan& plan, int64_t step) {
  auto batch = enqueue_gradients(session, options, plan.rows(step), step, [] { return true; });
  return collect_gradients(session, options, std::move(*batch));
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_file(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace caravan::test
