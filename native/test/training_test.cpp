// Whole runs: what they learn, what must leave their numbers alone, and how they end.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/row_order.h"
#include "engine/data/token_shard.h"
#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"
#include "engine/train/train_step.h"
#include "kernels/random.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const Method all_methods[] = {Method::lora, Method::pesc, Method::full, Method::upcycle};

TrainOptions into(TrainOptions options, const TempFolder& folder, const std::string& name) {
  options.checkpoint_dir = folder.path(name);
  return options;
}

std::string trained_bytes(const Told& told) { return read_file(told.result.checkpoint + "/trainable.safetensors"); }

/// Experts that are still copies of each other and a B that is still zero have gradients that are nothing but rounding.
void perturb(const Exec& exec, TrainableSet& set) {
  for (const Parameter& parameter : set.parameters()) {
    std::vector<float> noise(static_cast<size_t>(parameter.count));
    fill_normal(exec, noise.data(), parameter.count, 0.1f, 13, parameter.index);
    float* value = parameter.value.as<float>();
    for (size_t i = 0; i < noise.size(); ++i) value[i] += noise[i];
  }
}

/// Puts token 0, which stands nowhere else, into `rows`, and makes its embedding no number.
void poison_rows(const TempFolder& folder, TrainOptions& options, const std::vector<int32_t>& rows) {
  const SafetensorsFile stored = SafetensorsFile::open(options.model_dir + "/model.safetensors");
  std::string bytes = read_file(options.model_dir + "/model.safetensors");
  const float nan = std::nanf("");
  bytes.replace(stored.get("model.embed_tokens.weight").offset, 4, reinterpret_cast<const char*>(&nan), 4);
  write_file(options.model_dir + "/model.safetensors", bytes);
  const TokenShard shard = TokenShard::open(options.train_shard);
  std::vector<int32_t> ids, source;
  std::vector<int64_t> offsets = {0};
  std::vector<uint8_t> targets;
  for (int32_t r = 0; r < shard.rows(); ++r) {
    const ShardRow row = shard.row(r);
    ids.insert(ids.end(), row.ids.begin(), row.ids.end());
    targets.insert(targets.end(), row.targets.begin(), row.targets.end());
    if (std::find(rows.begin(), rows.end(), r) != rows.end()) ids[static_cast<size_t>(offsets.back())] = 0;
    offsets.push_back(static_cast<int64_t>(ids.size()));
    source.push_back(row.source);
  }
  options.train_shard = folder.path("poisoned.safetensors");
  write_token_shard(options.train_shard, {ids, offsets, targets, source, shard.sources(), {}});
}

/// Gradients of the first step, in a session of its own.
struct FirstStep {
  StepGradients step;
  std::vector<std::vector<float>> gradients;
};
FirstStep first_step(const TrainOptions& options) {
  TrainingSession session = open_training_session(options);
  perturb(session.exec, *session.set);
  StepPlan plan(*session.train, options);
  auto step = make_gradients(session, options, plan, 1);
  return {std::move(step), copy_gradients(*session.set)};
}

}  // namespace

TEST_CASE("every method learns in every type, and tells what it did") {
  int runs = 0;
  for (const Method method : all_methods) {
    for (const DType train_dtype : {DType::f32, DType::bf16}) {
      for (const DType compute : {DType::f32, DType::bf16}) {
        const TempFolder folder("learns");
        TrainOptions options = tiny_run(folder, method);
        options.train_dtype = train_dtype;
        options.compute_dtype = compute;
        options.base_dtype = BaseDType::bf16;
        options.lr = 1e-2f;
        options.epochs = 8;
        options.eval_steps = 10;
        INFO(std::string(method_name(method))
             << " train " << static_cast<int>(train_dtype) << " compute " << static_cast<int>(compute));
        const Told told = train(options);
        REQUIRE(told.error == "");
        CHECK(told.result.reason == "finished");
        REQUIRE(told.steps.size() == 40);
        REQUIRE(told.evaluations.size() == 5);  // 0, 10, 20, 30, 40
        CHECK(told.evaluations.front().step == 0);
        CHECK(told.evaluations.back().step == 40);
        // What lora and pesc can do over random frozen weights is little, but it is there.
        const bool frozen = method == Method::lora || method == Method::pesc;
        CHECK(told.steps.back().loss < (frozen ? 0.97 : 0.85) * told.steps.front().loss);
        CHECK(told.evaluations.back().loss < (frozen ? 0.975 : 0.93) * told.evaluations.front().loss);
        ++runs;
      }
    }
  }
  CHECK(runs == 16);
}

TEST_CASE("a step's metrics add up: sources, tokens, rows, experts, rates") {
  const TempFolder folder("metrics");
  const TrainOptions options = tiny_run(folder, Method::pesc);
  const TokenShard shard = TokenShard::open(options.train_shard, 61);
  const Told told = train(options);
  REQUIRE(told.error == "");
  REQUIRE(told.steps.size() == 10);
  std::set<int32_t> seen;
  for (const StepMetrics& step : told.steps) {
    CHECK(step.total_steps == 10);
    CHECK(step.epoch == doctest::Approx(static_cast<double>(step.step) / 5.0));
    REQUIRE(step.rows.size() == 8);
    REQUIRE(step.row_losses.size() == 8);
    int64_t tokens = 0, targets = 0;
    double sum = 0.0;
    for (size_t i = 0; i < step.rows.size(); ++i) {
      const ShardRow row = shard.row(step.rows[i]);
      tokens += static_cast<int64_t>(row.ids.size());
      targets += row.target_count();
      sum += static_cast<double>(step.row_losses[i]) * static_cast<double>(row.target_count());
      if (step.step <= 5) CHECK(seen.insert(step.rows[i]).second);
    }
    CHECK(step.tokens == tokens);
    CHECK(step.target_tokens == targets);
    CHECK(step.loss == doctest::Approx(sum / static_cast<double>(targets)).epsilon(1e-6));
    double by_source = 0.0;
    int64_t source_targets = 0, source_rows = 0;
    for (const SourceLoss& source : step.loss_by_source) {
      by_source += source.loss * static_cast<double>(source.target_tokens);
      source_targets += source.target_tokens;
      source_rows += source.rows;
      CHECK((source.source == "ones" || source.source == "twos" || source.source == "threes"));
    }
    CHECK(source_targets == targets);
    CHECK(source_rows == 8);
    CHECK(by_source / static_cast<double>(targets) == doctest::Approx(step.loss).epsilon(1e-9));
    REQUIRE(step.expert_shares.size() == 8);  // 2 layers of 4 experts
    for (size_t layer = 0; layer < 2; ++layer) {
      const auto first = step.expert_shares.begin() + static_cast<ptrdiff_t>(4 * layer);
      CHECK(std::accumulate(first, first + 4, 0.0f) == doctest::Approx(1.0f));
    }
    // alpha 0.01 over two layers, at least 1 each when balanced or not.
    CHECK(step.balance_loss > 0.0199);
    CHECK(step.balance_loss < 0.08);
    CHECK(step.balance_grad_norm > 0.0);
    CHECK(step.grad_norm > 0.0);
    CHECK_FALSE(step.skipped);
    CHECK(step.step_ms > 0.0);
    CHECK(step.tokens_per_second == doctest::Approx(static_cast<double>(tokens) * 1000.0 / step.step_ms));
    CHECK(step.memory_bytes > 1'000'000);
  }
  CHECK(seen.size() == 40);  // one epoch visits every row once
  CHECK(told.result.step_zero_difference == 0.0);
  REQUIRE(told.opened);
  CHECK(told.told_before_opened == 0);
  CHECK(told.opened->step_zero_difference == 0.0);
  CHECK(told.opened->quantization_difference < 0.0);  // an f32 base
  CHECK(told.phases ==
        std::vector<std::string>{"loading", "evaluating", "training", "evaluating", "training", "saving", "finished"});
}

TEST_CASE("the order of rows is a function of seed and epoch alone, and another for each") {
  const std::vector<int32_t> order = row_order(5, 0, 1000);
  CHECK(order == row_order(5, 0, 1000));
  CHECK(order != row_order(6, 0, 1000));
  CHECK(order != row_order(5, 1, 1000));
  std::vector<int32_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int32_t i = 0; i < 1000; ++i) CHECK(sorted[static_cast<size_t>(i)] == i);

  const TempFolder folder("order");
  TrainOptions options = tiny_run(folder, Method::lora);
  const Told told = train(options);
  options = into(options, folder, "other");
  options.packing = false;
  options.micro_batch_size = 1;
  options.lr = 1e-4f;
  options.threads = 2;
  const Told other = train(options);
  REQUIRE(other.steps.size() == told.steps.size());
  for (size_t i = 0; i < told.steps.size(); ++i) {
    CHECK(told.steps[i].rows == other.steps[i].rows);
    const int64_t first = static_cast<int64_t>(i % 5) * 8;
    const std::vector<int32_t> epoch = row_order(42, static_cast<uint32_t>(i / 5), 40);
    CHECK(told.steps[i].rows == std::vector<int32_t>(epoch.begin() + first, epoch.begin() + first + 8));
  }
}

TEST_CASE("eight micro-batches of one, two of four, and packed bins have one gradient, balance term and dropout off") {
  for (const Method method : all_methods) {
    const TempFolder folder("accumulation");
    TrainOptions options = tiny_run(folder, method);
    options.method.balance_coefficient = 0.0f;
    options.method.lora_dropout = options.method.adapter_dropout = 0.0f;
    options.packing = false;
    options.micro_batch_size = 1;
    const FirstStep ones = first_step(options);
    options.micro_batch_size = 4;
    const FirstStep fours = first_step(options);
    options.packing = true;
    options.micro_batch_size = 2;
    const FirstStep packed = first_step(options);
    INFO(std::string(method_name(method)));
    CHECK(ones.step.batch.micro_batches.size() == 8);
    CHECK(fours.step.batch.micro_batches.size() == 2);
    CHECK(packed.step.batch.micro_batches.size() < 4);
    CHECK(ones.step.batch.rows == packed.step.batch.rows);
    CHECK(ones.step.loss == doctest::Approx(fours.step.loss).epsilon(1e-6));
    CHECK(ones.step.loss == doctest::Approx(packed.step.loss).epsilon(1e-6));
    CHECK(largest_difference(fours.gradients, ones.gradients) < 3e-5);
    CHECK(largest_difference(packed.gradients, ones.gradients) < 3e-5);
  }
}

TEST_CASE("a step is its micro-batches: each weighed by its tokens and rounded by random numbers of its own") {
  const TempFolder folder("micro");
  TrainOptions options = tiny_run(folder, Method::pesc);
  options.train_dtype = DType::bf16;
  TrainingSession session = open_training_session(options);
  StepPlan plan(*session.train, options);
  const auto step = make_gradients(session, options, plan, 6);
  REQUIRE(step.batch.micro_batches.size() >= 3);
  const auto gradients = copy_gradients(*session.set);

  session.set->zero_gradients(session.exec);
  double balance = 0.0;
  for (size_t i = 0; i < step.batch.micro_batches.size(); ++i) {
    const MicroBatch& micro = step.batch.micro_batches[i];
    StepPlace place;
    place.seed = 42;
    place.step = 6;
    place.micro = static_cast<uint32_t>(i);
    place.loss_scale = 1.0f / static_cast<float>(step.batch.target_tokens);
    place.balance_weight =
        static_cast<float>(static_cast<double>(micro.valid_tokens()) / static_cast<double>(step.batch.tokens));
    const MicroBatchResult passed = session.decoder->forward_backward(micro.tokens(), micro.targets(), place);
    for (const float loss : passed.balance_loss) balance += 0.01 * place.balance_weight * loss;
  }
  CHECK(copy_gradients(*session.set) == gradients);
  CHECK(step.balance_loss == doctest::Approx(balance));
}

TEST_CASE("recomputation, threads and evaluation leave every bit of a run alone") {
  for (const Method method : all_methods) {
    const TempFolder folder("bits");
    TrainOptions options = tiny_run(folder, method);
    options.compute_dtype = DType::bf16;
    options.train_dtype = DType::bf16;
    const std::string plain = trained_bytes(train(into(options, folder, "plain")));
    REQUIRE(plain.size() > 1000);
    options.recompute = true;
    INFO(std::string(method_name(method)));
    CHECK(plain == trained_bytes(train(into(options, folder, "recompute"))));
    options.recompute_layers = 1;
    CHECK(plain == trained_bytes(train(into(options, folder, "recompute-some"))));
    options.recompute = false;
    options.threads = 3;
    CHECK(plain == trained_bytes(train(into(options, folder, "threads"))));
    options.eval_steps = 1;
    CHECK(plain == trained_bytes(train(into(options, folder, "evaluated"))));
    options.validation_shard.clear();
    CHECK(plain == trained_bytes(train(into(options, folder, "unevaluated"))));
    options.seed = 43;
    CHECK(plain != trained_bytes(train(into(options, folder, "seed"))));
  }
}

TEST_CASE("training leaves every byte of a frozen base alone") {
  for (const BaseDType dtype : {BaseDType::nf4, BaseDType::bf16}) {
    const TempFolder folder("frozen");
    TrainOptions options = tiny_run(folder, Method::pesc);
    options.base_dtype = dtype;
    options.lr = 1e-2f;
    TrainingSession session = open_training_session(options);
    const auto hash = [&] {
      Sha256 sha;
      const auto add = [&](const void* data, size_t bytes) {
        sha.update(std::span(static_cast<const std::byte*>(data), bytes));
      };
      for (const BaseLayer& layer : session.model->base()->layers) {
        add(layer.input_norm.data(), layer.input_norm.bytes());
        for (const StoredWeight& stored : layer.projections) {
          const Weight weight = stored.weight();
          if (weight.nf4 == nullptr) {
            add(weight.dense.data, static_cast<size_t>(weight.rows * weight.cols) * size_of(weight.dense.dtype));
          } else {
            add(weight.nf4->packed, static_cast<size_t>(weight.rows * weight.cols / 2));
          }
        }
      }
      const Weight embedding = session.model->base()->embedding.weight();
      add(embedding.dense.data, static_cast<size_t>(embedding.rows * embedding.cols) * size_of(embedding.dense.dtype));
      return sha.hex();
    };
    const std::string before = hash();
    const auto values = copy_values(*session.set);
    StepPlan plan(*session.train, options);
    for (int64_t step = 1; step <= 5; ++step) {
      make_gradients(session, options, plan, step);
      session.optimizer->update(session.exec, *session.set, options.lr, 1.0f, step);
    }
    CHECK(hash() == before);
    CHECK(copy_values(*session.set) != values);
  }
}

TEST_CASE("a step whose loss is not finite is skipped and recorded; three in a row end the run as diverged") {
  const TempFolder folder("diverged");
  TrainOptions options = tiny_run(folder, Method::full);
  options.save_steps = 1;
  options.keep_checkpoints = 3;
  // A rate that throws the weights so far in one update that the next forward pass overflows.
  options.schedule = "constant";
  options.warmup_ratio = 0.0f;
  options.max_grad_norm = 0.0f;
  const Told good = train(into(options, folder, "good"), 2);
  REQUIRE(good.error == "");

  options.lr = 1e30f;
  const Told told = train(into(options, folder, "bad"));
  CHECK(told.error_code == "diverged");
  REQUIRE(told.steps.size() == 4);
  CHECK_FALSE(told.steps[0].skipped);
  for (size_t i = 1; i < 4; ++i) {
    CHECK(told.steps[i].skipped);
    CHECK(told.steps[i].rows.size() == 8);
    CHECK((!std::isfinite(told.steps[i].loss) || !std::isfinite(told.steps[i].grad_norm)));
  }
  CHECK(told.warnings.size() >= 3);
  // What was written is whole and is named in the message.
  const std::vector<CheckpointInfo> kept = list_checkpoints(folder.path("bad"));
  REQUIRE_FALSE(kept.empty());
  for (const CheckpointInfo& one : kept) CHECK(one.problem == "");
  CHECK(told.error.find(kept.front().path) != std::string::npos);
}

TEST_CASE("one poisoned row costs its step alone, and the resumed run knows how many updates there were") {
  const TempFolder folder("poisoned");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.save_steps = 1;
  options.keep_checkpoints = 20;
  poison_rows(folder, options, {17});
  const Told told = train(into(options, folder, "whole"));
  REQUIRE(told.error == "");
  std::vector<int64_t> skipped;
  for (const StepMetrics& step : told.steps) {
    CHECK(step.skipped == (std::find(step.rows.begin(), step.rows.end(), 17) != step.rows.end()));
    // A step that was skipped left no checkpoint; all others did.
    CHECK(std::filesystem::exists(folder.path("whole/" + checkpoint_name(step.step))) == !step.skipped);
    if (step.skipped) skipped.push_back(step.step);
  }
  REQUIRE(skipped.size() == 2);  // once an epoch
  CHECK(read_checkpoint_manifest(told.result.checkpoint).progress.updates == 8);

  const Told stopped = train(into(options, folder, "stopped"), skipped[0]);
  REQUIRE(stopped.error == "");
  const CheckpointManifest manifest = read_checkpoint_manifest(stopped.result.checkpoint);
  CHECK(manifest.progress.step == skipped[0]);
  CHECK(manifest.progress.updates == skipped[0] - 1);
  CHECK(manifest.progress.consecutive_skips == 1);
  options.resume_from = stopped.result.checkpoint;
  const Told rest = train(into(options, folder, "stopped"));
  CHECK(trained_bytes(rest) == trained_bytes(told));
}

TEST_CASE("a diverged run keeps the checkpoint before its streak, and a streak goes on across a resume") {
  const TempFolder folder("streak");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.save_steps = 1;
  options.keep_checkpoints = 1;
  const TokenShard shard = TokenShard::open(options.train_shard);
  StepPlan plan(shard, options);
  poison_rows(folder, options, {plan.rows(3)[0], plan.rows(4)[5], plan.rows(5)[7]});
  const Told told = train(into(options, folder, "whole"));
  CHECK(told.error_code == "diverged");
  CHECK(told.steps.size() == 5);
  CHECK(told.error.find("steps 3 to 5") != std::string::npos);
  CHECK(told.error.find("step-000002") != std::string::npos);
  const std::vector<CheckpointInfo> kept = list_checkpoints(folder.path("whole"));
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].step == 2);
  CHECK(kept[0].problem == "");

  const Told stopped = train(into(options, folder, "stopped"), 4);
  REQUIRE(stopped.error == "");
  options.resume_from = stopped.result.checkpoint;
  const Told rest = train(into(options, folder, "stopped"));
  CHECK(rest.error_code == "diverged");
  CHECK(rest.steps.size() == 1);
}

TEST_CASE("clipping holds the gradient to its largest norm") {
  const TempFolder folder("clip");
  TrainOptions options = tiny_run(folder, Method::full);
  options.max_steps = 1;
  options.method.balance_coefficient = 0.0f;
  options.beta1 = 0.0f;  // the first moment is then the clipped gradient itself
  options.max_grad_norm = 0.01f;
  const Told told = train(options);
  REQUIRE(told.error == "");
  CHECK(told.steps[0].grad_norm > 0.1);  // told before clipping
  const SafetensorsFile state = SafetensorsFile::open(told.result.checkpoint + "/optimizer.safetensors");
  double sum = 0.0;
  for (const TensorInfo& tensor : state.tensors()) {
    if (!tensor.name.ends_with(".m")) continue;
    for (const float m : state.as<float>(tensor)) sum += static_cast<double>(m) * m;
  }
  CHECK(std::sqrt(sum) == doctest::Approx(0.01).epsilon(1e-4));
}

TEST_CASE("maxSteps ends earlier than the epochs, and the schedule knows") {
  const TempFolder folder("max-steps");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.max_steps = 4;
  options.schedule = "linear";
  options.warmup_ratio = 0.0f;
  const Told told = train(options);
  REQUIRE(told.steps.size() == 4);
  CHECK(told.result.total_steps == 4);
  for (const StepMetrics& step : told.steps) {
    CHECK(step.lr == doctest::Approx(2e-3 * (1.0 - static_cast<double>(step.step - 1) / 4.0)));
  }
}

TEST_CASE("random weights can be trained from nothing, and a stored model is then not needed") {
  const TempFolder folder("random");
  TrainOptions options = tiny_run(folder, Method::full);
  std::filesystem::remove(folder.path("model/model.safetensors"));
  CHECK(train(options).error_code == "bad_file");
  options.random_init = true;
  const Told told = train(options);
  REQUIRE(told.error == "");
  CHECK(told.steps.front().loss == doctest::Approx(std::log(61.0)).epsilon(0.05));
}

TEST_CASE("rows longer than seqLen, ids beyond the vocabulary and a missing shard are refused by name") {
  const TempFolder folder("bad-input");
  const TrainOptions options = tiny_run(folder, Method::lora);
  TrainOptions changed = options;
  changed.seq_len = 10;
  Told told = train(changed);
  CHECK(told.error_code == "bad_option");
  CHECK(told.error.find("seqLen is 10") != std::string::npos);
  changed = options;
  changed.train_shard = folder.path("none.safetensors");
  told = train(changed);
  CHECK(told.error_code == "bad_file");
  CHECK(told.error.find("none.safetensors") != std::string::npos);
  const std::vector<int32_t> ids = {1, 2, 61}, source = {0};
  const std::vector<int64_t> offsets = {0, 3};
  const std::vector<uint8_t> targets = {0, 1, 1};
  write_token_shard(folder.path("wide.safetensors"), {ids, offsets, targets, source, {"one"}, {}});
  changed.train_shard = folder.path("wide.safetensors");
  told = train(changed);
  CHECK(told.error_code == "bad_file");
  CHECK(told.error.find("token 61") != std::string::npos);
}
