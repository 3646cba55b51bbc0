// The trainer's own way through the recorded cases: a stored model and a token shard on disk, its step plan, its
// micro-batches, clipping and optimizer. PyTorch saw the same conversations in the same steps.
#include <cmath>

#include "doctest/doctest.h"
#include "engine/data/row_order.h"
#include "engine/train/train_step.h"
#include "recorded_case.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// The case's conversations, laid so that the order of the first epoch visits them as PyTorch did.
void write_recorded_shard(const RecordedCase& recorded, const std::string& path) {
  std::vector<Conversation> conversations;
  for (const auto& batch : recorded.batches) conversations.insert(conversations.end(), batch.begin(), batch.end());
  const std::vector<int32_t> order = row_order(recorded.seed, 0, static_cast<int64_t>(conversations.size()));
  std::vector<const Conversation*> rows(conversations.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[static_cast<size_t>(order[i])] = &conversations[i];
  std::vector<int32_t> ids, source(rows.size(), 0);
  std::vector<int64_t> offsets = {0};
  std::vector<uint8_t> targets;
  for (const Conversation* row : rows) {
    ids.insert(ids.end(), row->ids.begin(), row->ids.end());
    targets.insert(targets.end(), row->is_target.begin(), row->is_target.end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  write_token_shard(path, {ids, offsets, targets, source, {"recorded"}, {}});
}

/// One conversation a bin, three bins a micro-batch: the cut of record_cases.py.
TrainOptions recorded_options(const RecordedCase& recorded, const TempFolder& folder) {
  write_recorded_base(recorded, folder.path());
  write_recorded_shard(recorded, folder.path("train.safetensors"));
  TrainOptions options;
  options.model_dir = folder.path();
  options.train_shard = folder.path("train.safetensors");
  options.checkpoint_dir = folder.path("checkpoints");
  options.method = recorded.method;
  options.base_dtype = recorded.base;
  options.batch_size = static_cast<int64_t>(recorded.batches[0].size());
  options.micro_batch_size = options.batch_size - 1;
  options.seq_len = 12;
  options.packing = false;
  options.lr = recorded.lr;
  options.warmup_ratio = 0.0f;
  options.weight_decay = recorded.weight_decay;
  options.max_grad_norm = static_cast<float>(recorded.max_grad_norm);
  options.seed = recorded.seed;
  options.threads = 2;
  options.device = test_device();
  return options;
}

}  // namespace

TEST_CASE("a whole run of full fine-tuning has PyTorch's losses and ends in PyTorch's weights") {
  for (const char* name : {"llama-full", "llama-full-tied", "qwen2-full", "qwen2-full-untied"}) {
    const RecordedCase recorded(name);
    INFO(std::string(name));
    const TempFolder folder("recorded-run");
    const Told told = train(recorded_options(recorded, folder));
    REQUIRE(told.error == "");
    REQUIRE(told.steps.size() == 10);
    std::vector<double> loss, balance;
    for (const StepMetrics& step : told.steps) {
      loss.push_back(step.loss);
      balance.push_back(step.balance_loss);
    }
    check_losses(recorded, loss, balance);
    const SafetensorsFile file = SafetensorsFile::open(told.result.checkpoint + "/trainable.safetensors");
    std::vector<std::vector<float>> before, after;
    for (const Parameter& parameter : list_parameters(recorded.config, recorded.method)) {
      before.push_back(recorded.initial(parameter.name, parameter.shape));
      const auto values = file.as<float>(file.get(parameter.name));
      after.emplace_back(values.begin(), values.end());
    }
    check_updates(recorded, before, after);
  }
}

TEST_CASE("the trainer's steps of the other methods, started where PyTorch started, are PyTorch's") {
  for (const char* name : {"llama-lora", "qwen2-lora-dropout", "llama-pesc-dropout", "qwen2-pesc-8-2",
                           "qwen2-pesc-hole", "llama-pesc-nf4", "llama-upcycle"}) {
    const RecordedCase recorded(name);
    INFO(std::string(name));
    const TempFolder folder("recorded-steps");
    const TrainOptions options = recorded_options(recorded, folder);
    TrainingSession session = open_training_session(options);
    set_recorded_values(recorded, *session.set);
    const std::vector<std::vector<float>> before = copy_values(*session.set);
    StepPlan plan(*session.train, options);
    REQUIRE(plan.total_steps() == 10);
    std::vector<double> loss, balance;
    for (int64_t step = 1; step <= 10; ++step) {
      const StepGradients gradients = make_gradients(session, options, plan, step);
      REQUIRE(gradients.batch.micro_batches.size() == 2);
      loss.push_back(gradients.loss);
      balance.push_back(gradients.balance_loss);
      const double norm = gradient_norm(session.exec, *session.set);
      const auto scale = static_cast<float>(std::min(1.0, recorded.max_grad_norm / (norm + 1e-6)));
      session.optimizer->update(session.exec, *session.set, recorded.lr, scale, step);
    }
    check_losses(recorded, loss, balance);
    check_updates(recorded, before, copy_values(*session.set));
  }
}
