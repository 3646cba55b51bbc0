#include "engine/train/training_plan.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/model/stored_experts.h"
#include "engine/optim/schedule.h"
#include "engine/train/training_session.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

/// A GPU's memory is handed out in such pieces to whoever asks for more than a part of one.
constexpr int64_t device_page = int64_t{2} << 20;

/// What CUDA takes for a context, the code of the kernels that run and cuBLASLt: measured as NVML's used memory before and
/// after (native/bench/memory_bench.cpp prints it). It grows with the device's multiprocessors, whose stacks it holds.
constexpr int64_t driver_bytes = int64_t{612} << 20;

/// Buffers of a few kilobytes each, which share pages: tokens, balance terms, angles, norms.
constexpr int64_t small_bytes = int64_t{8} << 20;

/// What a process with a CUDA context holds in the machine's memory: the driver's own, and the pinned memory of uploads.
constexpr int64_t driver_host_bytes = int64_t{1} << 30;

/// What the base keeps in memory beside a set that does not replace it.
int64_t base_bytes(const ModelConfig& config, const TrainOptions& options) {
  if (options.method.trains_everything()) return 0;
  return static_cast<int64_t>(base_model_bytes(options.device, config, base_options(options)));
}

/// What one operation takes on a GPU beside its operands, at most: cuBLASLt's space and a weight in the type of the
/// activations, or what attention's backward pass keeps of each row.
int64_t operation_bytes(const ModelConfig& config, const TrainOptions& options) {
  constexpr int64_t cublaslt = int64_t{32} << 20;
  int64_t weight = 0;
  const bool copies = options.base_dtype == BaseDType::nf4 ||
                      (options.base_dtype == BaseDType::f32 && options.compute_dtype == DType::bf16) ||
                      (options.method.trains_everything() && options.train_dtype != options.compute_dtype);
  for (const Proj proj : all_projections) {
    weight = std::max(weight, projection_rows(config, proj) * projection_cols(config, proj));
  }
  if (options.method.trains_everything()) weight = std::max(weight, config.vocab_size * config.hidden_size);
  const int64_t copy = copies ? weight * static_cast<int64_t>(size_of(options.compute_dtype)) : 0;
  const int64_t attention = decoder_options(options).max_tokens * config.num_heads * int64_t{sizeof(float)} * 2;
  return std::max(cublaslt + copy, attention);
}

void count_parameters(TrainingPlan& plan, const ModelConfig& config, const std::vector<Parameter>& parameters) {
  plan.base_parameters = config.parameter_count();
  int64_t replaced = 0, added = 0;
  for (const Parameter& parameter : parameters) {
    plan.trainable_parameters += parameter.count;
    switch (parameter.group) {
      case ParameterGroup::lora: plan.lora_parameters += parameter.count; break;
      case ParameterGroup::adapter: plan.adapter_parameters += parameter.count; break;
      case ParameterGroup::router: plan.router_parameters += parameter.count; break;
      case ParameterGroup::expert:
        added += parameter.count;
        replaced += parameter.count / parameter.shape[0];  // one copy of the FFN was there before
        break;
      case ParameterGroup::base: break;
    }
  }
  plan.total_parameters =
      plan.base_parameters - replaced + added + plan.lora_parameters + plan.adapter_parameters + plan.router_parameters;
}

int64_t value_bytes(const std::vector<Parameter>& parameters, DType train_dtype) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters) {
    total += parameter.count * static_cast<int64_t>(parameter.shape.size() == 1 ? 4 : size_of(train_dtype));
  }
  return total;
}

/// The most that opening a session takes before gradients, optimizer and activations are there: the base beside the set
/// that is made of it, or the unquantised weights that NF4 is compared with.
int64_t loading_bytes(const ModelConfig& config, const TrainOptions& options) {
  if (options.method.trains_everything()) {
    return static_cast<int64_t>(base_model_bytes(options.device, config, base_options(options))) +
           value_bytes(list_parameters(config, options.method), options.train_dtype);
  }
  if (options.base_dtype != BaseDType::nf4 || !compares_unquantised(config, options)) return 0;
  BaseOptions dense = base_options(options);
  dense.dtype = options.compute_dtype == DType::f32 ? BaseDType::f32 : BaseDType::bf16;
  DecoderOptions sample = decoder_options(options);
  sample.recompute = true;
  sample.recompute_layers = 0;
  sample.max_targets = 32;
  const DecoderMemory pass = plan_decoder_memory(config, MethodOptions{.method = Method::base}, DType::f32, sample);
  return static_cast<int64_t>(base_model_bytes(options.device, config, dense) + pass.activations + pass.workspace +
                              pass.logits);
}

/// The longest rows of the shard, as many as one micro-batch may hold.
MicroBatch longest_micro_batch(const TokenShard& shard, const TrainOptions& options) {
  std::vector<int32_t> rows(static_cast<size_t>(shard.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int32_t a, int32_t b) { return shard.row_length(a) > shard.row_length(b); });
  MicroBatch batch;
  const int64_t most = std::min(static_cast<int64_t>(rows.size()), options.batch_size);
  for (int32_t i = 0; i < most; ++i) {
    const ShardRow row = shard.row(rows[static_cast<size_t>(i)]);
    const int64_t length = static_cast<int64_t>(row.ids.size());
    if (batch.size() + length > decoder_options(options).max_tokens) break;
    batch.add(row.ids.data(), row.targets.data(), length, i);
  }
  return batch;
}

}  // namespace

MemoryPlan plan_memory(const ModelConfig& config, const TrainOptions& options) {
  const bool gpu = options.device == Device::cuda;
  const AdamWKind kind = parse_adamw_kind(options.optimizer);
  const std::vector<Parameter> parameters = list_parameters(config, options.method);
  const int64_t values = value_bytes(parameters, options.train_dtype);
  const int64_t state = static_cast<int64_t>(AdamW::planned_bytes(parameters, kind.eight_bit));
  const bool paged = gpu && kind.paged;
  const DecoderMemory pass = plan_decoder_memory(config, options.method, options.train_dtype, decoder_options(options));
  const int64_t results = static_cast<int64_t>(pass.results);

  MemoryPlan plan;
  const auto add = [&](const char* item, int64_t bytes) {
    if (gpu) bytes = (bytes + device_page - 1) / device_page * device_page;
    plan.items.push_back({item, bytes});
    plan.total += bytes;
  };
  add("base", base_bytes(config, options));
  add("trainable", values + (keeps_copies(options) ? values / 2 : 0));
  add("gradients", values);
  add("optimizer", paged ? static_cast<int64_t>(AdamW::paging_bytes()) : state);
  add("activations", static_cast<int64_t>(pass.activations));
  add("workspace",
      static_cast<int64_t>(pass.workspace) + results + (gpu ? operation_bytes(config, options) + small_bytes : 0));
  add("logits", static_cast<int64_t>(pass.logits));
  if (!gpu) {
    add("snapshot", values + state);
    return plan;
  }
  add("driver", driver_bytes);
  const int64_t loading = loading_bytes(config, options) + driver_bytes;
  if (loading > plan.total) add("loading", loading - plan.total);
  plan.host = values + state + (paged ? state : 0) + driver_host_bytes;
  return plan;
}

TrainingPlan plan_training(const TrainOptions& options) {
  check_train_options(options);
  const ModelConfig config = read_model_config(options.model_dir);
  refuse_stored_experts(config, options.model_dir);
  const TokenShard shard = open_shard(options.train_shard, config, options);
  const std::vector<Parameter> parameters = list_parameters(config, options.method);
  TrainingPlan plan;
  count_parameters(plan, config, parameters);
  plan.memory = plan_memory(config, options);
  plan.checkpoint_bytes =
      value_bytes(parameters, options.train_dtype) +
      static_cast<int64_t>(AdamW::planned_bytes(parameters, parse_adamw_kind(options.optimizer).eight_bit));

  const StepPlan steps(shard, options);
  plan.rows = shard.rows();
  plan.steps = steps.total_steps();
  plan.warmup_steps = warmup_steps(options.warmup_ratio, plan.steps);
  return plan;
}

ProbeResult probe_training(const TrainOptions& options) {
  check_train_options(options);
  TrainingSession session = open_training_session(options);
  const MicroBatch batch = longest_micro_batch(*session.train, options);
  StepPlace place;
  place.loss_scale = 1.0f / static_cast<float>(std::max<int64_t>(batch.target_count(), 1));
  const auto micro_batch = [&] {
    const auto start = std::chrono::steady_clock::now();
    session.decoder->forward_backward(batch.tokens(), batch.targets(), place);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  micro_batch();  // touches every page
  const double forward_backward_ms = micro_batch();
  const auto start = std::chrono::steady_clock::now();
  session.optimizer->update(session.exec, *session.set, 0.0f, 0.0f, 1);
  synchronize(session.exec);
  const double update_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  const double tokens = static_cast<double>(session.train->tokens());
  const double rows = static_cast<double>(session.train->rows());
  const double step_tokens =
      tokens / rows * static_cast<double>(std::min<int64_t>(options.batch_size, session.train->rows()));
  ProbeResult probe;
  probe.step_ms = forward_backward_ms * step_tokens / static_cast<double>(batch.size()) + update_ms;
  probe.tokens_per_second = step_tokens * 1000.0 / probe.step_ms;
  return probe;
}

}  // namespace caravan
